//! Every external dependency states its reason in the root manifest, and packages take their versions from there.

use std::path::Path;

use crate::workspace;

/// Dependencies without a reason, and packages that state a version of their own.
pub(crate) fn problems(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut problems = without_reason(&workspace::read(&root.join("Cargo.toml"))?);
    for path in workspace::files(root, "Cargo.toml")? {
        if path == root.join("Cargo.toml") {
            continue;
        }
        let (shown, manifest) = (workspace::shown(&path, root), workspace::read(&path)?);
        // A workspace of its own (`fuzz/`, `clients/rust/`): its dependencies have versions and state their reasons in place.
        let is_own = manifest.lines().any(|line| line.trim() == "[workspace]");
        problems.extend(if is_own {
            without_reason_in(&shown, "dependencies", &manifest)
        } else {
            own_versions(&shown, &manifest)
        });
    }
    Ok(problems)
}

/// The lines of the sections whose name passes, each with its number from 1.
fn lines_of_sections<'a>(
    manifest: &'a str,
    wanted: impl Fn(&str) -> bool + 'a,
) -> impl Iterator<Item = (usize, &'a str)> + 'a {
    let mut inside = false;
    manifest.lines().enumerate().filter_map(move |(at, line)| {
        if let Some(section) = line.trim().strip_prefix('[') {
            inside = wanted(section.trim_end_matches(']'));
            return None;
        }
        (inside && line.contains('=') && !line.trim_start().starts_with('#'))
            .then_some((at + 1, line))
    })
}

fn without_reason(manifest: &str) -> Vec<String> {
    without_reason_in("Cargo.toml", "workspace.dependencies", manifest)
}

fn without_reason_in(path: &str, section: &'static str, manifest: &str) -> Vec<String> {
    lines_of_sections(manifest, move |found| found == section)
        .filter(|(_, line)| {
            !line.contains("path = \"crates/") && !line.contains("path = \"../crates/")
        })
        .filter(|(_, line)| {
            line.split_once(" # ")
                .is_none_or(|(_, reason)| reason.trim().is_empty())
        })
        .map(|(at, line)| {
            let name = line.split('=').next().unwrap_or(line).trim();
            format!(
                "{path}:{at}: dependency `{name}` has no reason: add `# why` at the end of its line"
            )
        })
        .collect()
}

fn own_versions(path: &str, manifest: &str) -> Vec<String> {
    lines_of_sections(manifest, |section| section.ends_with("dependencies"))
        .filter(|(_, line)| !line.contains("workspace = true"))
        .map(|(at, line)| {
            format!(
                "{path}:{at}: `{}` does not come from the workspace's dependencies",
                line.trim()
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dependency_of_this_workspace_states_its_reason() {
        assert_eq!(problems(&workspace::root()).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn dependency_without_reason_is_found() {
        let manifest = "[workspace.dependencies]\nours = { path = \"crates/ours\" }\n# a comment = above\nserde = \"1\" # derives\nbytes = \"1\"\n\n[profile.dev]\ndebug = 1\n";
        let found = without_reason(manifest);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].contains("Cargo.toml:5: dependency `bytes`"),
            "{found:?}"
        );
    }

    #[test]
    fn own_version_is_found() {
        let manifest = "[package]\nname = \"x\"\n[dependencies]\nserde = { workspace = true }\n[dev-dependencies]\nrand = \"0.9\"\n";
        let found = own_versions("crates/x/Cargo.toml", manifest);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("crates/x/Cargo.toml:6"), "{found:?}");
    }
}
