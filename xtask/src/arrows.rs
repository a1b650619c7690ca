//! The folders are the architecture: which crate may use which, and what the cores may use from outside (ARCHITECTURE.md).
//!
//! Development dependencies are no arrows, as nothing ships with them; a core's may still not bring a runtime in, or its tests would
//! no longer show that it needs none.

use serde_json::Value;

/// One crate's row: its folder below `crates/`, and the folders it may use.
struct Row {
    folder: &'static str,
    uses: &'static [&'static str],
}

const fn row(folder: &'static str, uses: &'static [&'static str]) -> Row {
    Row { folder, uses }
}

/// Every arrow there may be. A crate that is not listed may not exist.
const TABLE: &[Row] = &[
    row("types", &[]),
    row("consensus", &["types"]),
    row("coord", &["types"]),
    row("replica", &["types", "consensus", "coord"]),
    row("storage", &["types"]),
    // The peer protocol forwards calls, and calls belong to `replica` (ADR codec-postcard).
    row("codec", &["types", "consensus", "coord", "replica"]),
    row("wire", &["types"]),
    row(
        "server",
        &[
            "types",
            "consensus",
            "coord",
            "replica",
            "storage",
            "codec",
            "wire",
        ],
    ),
    row("client", &["types", "wire"]),
    // `types` and `wire` are what the SDK's own interface is made of.
    row("cli", &["types", "wire", "client", "server"]),
    row(
        "sim",
        &[
            "types",
            "consensus",
            "coord",
            "replica",
            "storage",
            "codec",
            "wire",
            "client",
        ],
    ),
];

/// The crates without I/O, clock, async or OS randomness.
pub(crate) const CORES: &[&str] = &["consensus", "coord", "replica"];

/// What the cores, and `types` below them, may use from outside.
const CORES_MAY_USE: &[&str] = &["thiserror", "serde", "imbl", "fastrand"];

/// What even the tests of a core do without.
const NEVER_IN_CORES: &[&str] = &[
    "tokio",
    "tokio-util",
    "tokio-stream",
    "rustix",
    "futures-util",
];

/// The package of a folder: `quorate-<folder>`, but the binary's is `quorate`.
fn package_of(folder: &str) -> String {
    if folder == "cli" {
        "quorate".to_owned()
    } else {
        format!("quorate-{folder}")
    }
}

/// The arrows of these packages that the table does not hold, and more of that kind.
pub(crate) fn problems(metadata: &Value) -> Vec<String> {
    let packages = metadata["packages"]
        .as_array()
        .expect("cargo metadata lists packages");
    packages
        .iter()
        .filter(|package| package["name"] != "xtask")
        .flat_map(problems_of)
        .collect()
}

fn problems_of(package: &Value) -> Vec<String> {
    let name = package["name"].as_str().expect("a package has a name");
    let Some(row) = TABLE.iter().find(|row| package_of(row.folder) == name) else {
        return vec![format!(
            "package `{name}` has no row in xtask/src/arrows.rs: add one, and say why in an ADR"
        )];
    };
    let mut problems = Vec::new();
    let manifest = package["manifest_path"]
        .as_str()
        .expect("a package has a manifest");
    if !manifest.ends_with(&format!("crates/{}/Cargo.toml", row.folder)) {
        problems.push(format!(
            "package `{name}` lies in `{manifest}`, not in `crates/{}`",
            row.folder
        ));
    }
    let is_core = CORES.contains(&row.folder) || row.folder == "types";
    for dependency in package["dependencies"]
        .as_array()
        .expect("a package lists its dependencies")
    {
        let used = dependency["name"]
            .as_str()
            .expect("a dependency has a name");
        let is_ours = dependency["path"].is_string();
        let is_dev = dependency["kind"] == "dev";
        if is_ours && !is_dev && !row.uses.iter().any(|folder| package_of(folder) == used) {
            problems.push(format!(
                "`{name}` may not use `{used}`: the table of arrows does not allow it"
            ));
        }
        if is_core && !is_ours && !is_dev && !CORES_MAY_USE.contains(&used) {
            problems.push(format!(
                "`{name}` is a core and may not use `{used}`: only {CORES_MAY_USE:?}"
            ));
        }
        if is_core && NEVER_IN_CORES.contains(&used) {
            problems.push(format!(
                "`{name}` is a core and not even its tests may use `{used}`"
            ));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::workspace;

    #[test]
    fn arrows_of_this_workspace_are_those_of_the_table() {
        let metadata = workspace::metadata(&workspace::root()).unwrap();
        assert_eq!(problems(&metadata), Vec::<String>::new());
    }

    #[test]
    fn rows_use_only_rows_above_them() {
        for (at, row) in TABLE.iter().enumerate() {
            for used in row.uses {
                let above = TABLE[..at].iter().any(|other| other.folder == *used);
                assert!(
                    above,
                    "`{}` uses `{used}`, which is not above it",
                    row.folder
                );
            }
        }
    }

    #[track_caller]
    fn check(name: &str, folder: &str, dependency: &Value, expected: &str) {
        let metadata = json!({"packages": [{
            "name": name,
            "manifest_path": format!("/w/crates/{folder}/Cargo.toml"),
            "dependencies": [dependency],
        }]});
        let found = problems(&metadata);
        if expected.is_empty() {
            assert_eq!(found, Vec::<String>::new());
        } else {
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].contains(expected), "{found:?}");
        }
    }

    #[test]
    fn missing_arrow_is_found() {
        let dependency =
            json!({"name": "quorate-server", "path": "/w/crates/server", "kind": null});
        check(
            "quorate-coord",
            "coord",
            &dependency,
            "may not use `quorate-server`",
        );
    }

    #[test]
    fn dev_dependency_is_no_arrow() {
        let dependency = json!({"name": "quorate-coord", "path": "/w/crates/coord", "kind": "dev"});
        check("quorate-consensus", "consensus", &dependency, "");
    }

    #[test]
    fn runtime_in_a_core_is_found_even_in_its_tests() {
        check(
            "quorate-coord",
            "coord",
            &json!({"name": "bytes", "kind": null}),
            "is a core and may not use `bytes`",
        );
        check(
            "quorate-coord",
            "coord",
            &json!({"name": "tokio", "kind": "dev"}),
            "not even its tests",
        );
        check(
            "quorate-coord",
            "coord",
            &json!({"name": "serde", "kind": null}),
            "",
        );
    }

    #[test]
    fn unlisted_package_is_found() {
        check(
            "quorate-utils",
            "utils",
            &json!({"name": "serde", "kind": null}),
            "has no row",
        );
    }
}
