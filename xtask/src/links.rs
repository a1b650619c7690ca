//! Relative links in our Markdown files lead somewhere.

use std::path::Path;

use crate::workspace;

/// Links that lead nowhere.
pub(crate) fn problems(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut problems = Vec::new();
    for path in workspace::files(root, ".md")? {
        let text = workspace::read(&path)?;
        let folder = path.parent().expect("a file lies in a folder");
        for (line, target) in links(&text) {
            let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let found = if file.is_empty() {
                path.clone()
            } else {
                folder.join(file)
            };
            let shown = workspace::shown(&path, root);
            if !found.exists() {
                problems.push(format!("{shown}:{line}: the link `{target}` leads nowhere"));
            } else if !anchor.is_empty()
                && !anchors(&workspace::read(&found)?)
                    .iter()
                    .any(|known| known == anchor)
            {
                problems.push(format!(
                    "{shown}:{line}: no heading for the anchor of `{target}`"
                ));
            }
        }
    }
    Ok(problems)
}

/// Lines outside code fences, numbered from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(at, line)| {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            return None;
        }
        (!fenced).then_some((at + 1, line))
    })
}

/// Targets of inline links that are relative, with their lines.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, line) in prose(text) {
        for (start, _) in line.match_indices("](") {
            let rest = &line[start + 2..];
            let Some(end) = rest.find(')') else { continue };
            let target = &rest[..end];
            if !target.contains("://") && !target.starts_with("mailto:") {
                found.push((at, target.to_owned()));
            }
        }
    }
    found
}

/// The anchors that the headings of a page give, by the usual rule: lower case, punctuation dropped, spaces to dashes.
fn anchors(text: &str) -> Vec<String> {
    prose(text)
        .filter_map(|(_, line)| line.strip_prefix('#'))
        .map(|heading| {
            let heading = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = heading
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_our_pages_lead_somewhere() {
        assert_eq!(problems(&workspace::root()).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn relative_links_are_found_outside_code() {
        let text =
            "[a](docs/a.md) and [b](https://example.org/b)\n```\n[c](c.md)\n```\n[d](#d-e)\n";
        assert_eq!(
            links(text),
            vec![(1, "docs/a.md".to_owned()), (5, "#d-e".to_owned())]
        );
    }

    #[test]
    fn anchors_follow_headings() {
        assert_eq!(
            anchors("# A `b`, c\n```\n# no\n```\n## 2. D-e\n"),
            vec!["a-b-c", "2-d-e"]
        );
    }
}
