//! Rules of the source files: each says what it owns, none grows without end, and the cores stay cores.

use std::path::Path;

use crate::arrows::CORES;
use crate::workspace;

/// Lines before the tests beyond which a file surely holds two ideas.
const LINES_MAX: usize = 900;

/// What no core's `clippy.toml` may leave allowed.
const BANNED_IN_CORES: &[&str] = &[
    "std::time::Instant::now",
    "std::time::SystemTime::now",
    "std::collections::HashMap",
    "std::collections::HashSet",
];

/// The SDK's lease logic runs in the simulator too, but shares its crate with async code: clippy cannot ban this per module.
const LEASE_LOGIC: &[&str] = &["crates/client/src/lease.rs", "crates/client/src/lease"];
const BANNED_IN_LEASE_LOGIC: &[&str] = &[
    "tokio",
    "Instant",
    "SystemTime",
    "HashMap",
    "HashSet",
    "std::thread",
    "rustix",
];

/// Files that break a rule.
pub(crate) fn problems(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut problems = Vec::new();
    for path in workspace::files(root, ".rs")? {
        let text = workspace::read(&path)?;
        problems.extend(problem_of(&workspace::shown(&path, root), &text));
    }
    for core in CORES {
        let path = format!("crates/{core}/clippy.toml");
        let text = workspace::read(&root.join(&path))?;
        problems.extend(missing_bans(&path, &text));
    }
    Ok(problems)
}

fn problem_of(path: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if !text.starts_with("//!") {
        problems.push(format!(
            "{path}: does not open with `//!` saying what it owns"
        ));
    }
    if path.ends_with("/mod.rs") {
        problems.push(format!("{path}: use `foo.rs` beside `foo/`"));
    }
    let is_tests = path.ends_with("/tests.rs") || path.contains("/tests/");
    let lines = text
        .lines()
        .take_while(|line| *line != "#[cfg(test)]")
        .count();
    if lines > LINES_MAX && !is_tests {
        problems.push(format!("{path}: {lines} lines before its tests, more than {LINES_MAX}: look for the second idea"));
    }
    let is_lease_logic = LEASE_LOGIC.iter().any(|place| path.starts_with(place));
    if is_lease_logic {
        // Comments may name what the code must not use.
        let code: String = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .collect();
        for banned in BANNED_IN_LEASE_LOGIC
            .iter()
            .filter(|banned| code.contains(**banned))
        {
            problems.push(format!(
                "{path}: lease logic may not use `{banned}`: the simulator runs it"
            ));
        }
    }
    problems
}

fn missing_bans(path: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    for banned in BANNED_IN_CORES {
        match text
            .lines()
            .find(|line| line.contains(&format!("path = \"{banned}\"")))
        {
            None => problems.push(format!("{path}: does not ban `{banned}`")),
            Some(line) if !line.contains("reason = \"") => {
                problems.push(format!(
                    "{path}: the ban of `{banned}` names no replacement"
                ));
            }
            Some(_) => {}
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_of_this_workspace_keep_the_rules() {
        assert_eq!(problems(&workspace::root()).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn file_without_purpose_is_found() {
        assert_eq!(
            problem_of("crates/x/src/a.rs", "//! Owns a.\n"),
            Vec::<String>::new()
        );
        assert!(
            problem_of("crates/x/src/a.rs", "use std::fs;\n")[0].contains("does not open with")
        );
    }

    #[test]
    fn long_file_is_found_but_its_tests_do_not_count() {
        let long = format!("//! Owns a.\n{}", "\n".repeat(LINES_MAX));
        assert!(problem_of("crates/x/src/a.rs", &long)[0].contains("look for the second idea"));
        let tested = format!("//! Owns a.\n#[cfg(test)]\n{}", "\n".repeat(LINES_MAX));
        assert_eq!(
            problem_of("crates/x/src/a.rs", &tested),
            Vec::<String>::new()
        );
    }

    #[test]
    fn clock_in_the_lease_logic_is_found() {
        let text = "//! Counts.\n// Instant::now would differ between runs.\n";
        assert_eq!(
            problem_of("crates/client/src/lease.rs", text),
            Vec::<String>::new()
        );
        let text = "//! Counts.\nuse std::time::Instant;\n";
        assert!(problem_of("crates/client/src/lease/event.rs", text)[0].contains("`Instant`"));
    }

    #[test]
    fn missing_ban_is_found() {
        let text = "disallowed-methods = [\n  { path = \"std::time::Instant::now\" },\n]\n";
        let found = missing_bans("crates/x/clippy.toml", text);
        assert_eq!(found.len(), BANNED_IN_CORES.len(), "{found:?}");
        assert!(found[0].contains("names no replacement"), "{found:?}");
    }
}
