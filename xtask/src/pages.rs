//! What our pages list of the code is complete and exists: configuration fields, error codes, metrics, checkers.

use std::path::Path;

use crate::workspace;

/// Where a page and the code disagree.
pub(crate) fn problems(root: &Path) -> anyhow::Result<Vec<String>> {
    let read = |path: &str| workspace::read(&root.join(path));
    let mut problems = Vec::new();

    let server_page = read("docs/operating/server.md")?;
    for field in fields(&read("crates/server/src/config/file.rs")?) {
        if !server_page.contains(&field) {
            problems.push(format!(
                "docs/operating/server.md: the configuration field `{field}` is missing"
            ));
        }
    }
    let metrics = read("crates/server/src/metrics.rs")?;
    for metric in quoted(&server_page, "quorate_", is_name) {
        if !metrics.contains(&format!("\"{metric}\"")) && metric != "quorate_server" {
            problems.push(format!(
                "docs/operating/server.md: there is no metric `{metric}`"
            ));
        }
    }

    let errors_page = read("docs/operating/errors.md")?;
    for code in quoted(&read("crates/wire/src/api/error.rs")?, "=> \"", |c| {
        c.is_ascii_lowercase() || c == '-'
    }) {
        let code = code.trim_start_matches("=> \"");
        if !errors_page.contains(&format!("`{code}`")) {
            problems.push(format!(
                "docs/operating/errors.md: the error code `{code}` is missing"
            ));
        }
    }

    let etcd_page = read("docs/etcd-compatibility.md")?;
    let protos = workspace::files(&root.join("proto/etcd"), ".proto")?;
    for path in protos {
        for name in named_in_proto(&workspace::read(&path)?) {
            if !etcd_page.contains(&format!("`{name}`")) {
                problems.push(format!(
                    "docs/etcd-compatibility.md: `{name}` of {} is missing",
                    workspace::shown(&path, root)
                ));
            }
        }
    }

    let guarantees = read("docs/guarantees.md")?;
    for path in workspace::files(&root.join("crates/sim/src/checkers"), ".rs")? {
        let name = path
            .file_stem()
            .expect("a source file has a name")
            .to_string_lossy()
            .into_owned();
        if !guarantees.contains(&format!("`{name}`")) {
            problems.push(format!(
                "docs/guarantees.md: the checker `{name}` is missing"
            ));
        }
    }
    Ok(problems)
}

fn is_name(c: char) -> bool {
    c.is_ascii_lowercase() || c == '_'
}

/// The public fields of the structs in a source file.
fn fields(source: &str) -> Vec<String> {
    let public = source
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pub "));
    let named = public.filter_map(|rest| rest.split_once(':').map(|(name, _)| name));
    named
        .filter(|name| name.chars().all(is_name))
        .map(str::to_owned)
        .collect()
}

/// The calls and fields of a proto file.
fn named_in_proto(proto: &str) -> Vec<String> {
    let code = proto
        .lines()
        .map(|line| line.split("//").next().unwrap_or(line).trim());
    code.filter_map(|line| {
        let call = line
            .strip_prefix("rpc ")
            .and_then(|rest| rest.split('(').next());
        let field = || {
            let (before, number) = line.strip_suffix(';')?.split_once(" = ")?;
            number.parse::<u32>().ok()?;
            // A value of an enumeration has no type before its name.
            before.split_once(' ')?;
            before.split_whitespace().last()
        };
        call.or_else(field).map(|name| name.trim().to_owned())
    })
    .collect()
}

/// Every run of characters that begins with `start` and goes on while `keep`.
fn quoted(text: &str, start: &str, keep: fn(char) -> bool) -> Vec<String> {
    text.match_indices(start)
        .map(|(at, _)| {
            let rest = &text[at + start.len()..];
            let end = rest.find(|c| !keep(c)).unwrap_or(rest.len());
            format!("{start}{}", &rest[..end])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_pages_and_the_code_agree() {
        assert_eq!(problems(&workspace::root()).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn calls_and_fields_of_a_proto_are_found() {
        let proto = "service KV {\n  rpc Range(A) returns (B);\n}\nmessage A {\n  enum E {\n    X = 0;\n  }\n  repeated bytes key = 1; // one\n  a.B b = 2;\n}\n";
        assert_eq!(named_in_proto(proto), vec!["Range", "key", "b"]);
    }

    #[test]
    fn fields_and_names_are_found() {
        assert_eq!(
            fields("pub struct A {\n    pub data_dir: Option<u64>,\n    pub fn x(a: u8)\n}\n"),
            vec!["data_dir"]
        );
        assert_eq!(
            quoted("`quorate_a_b{x}` quorate_c", "quorate_", is_name),
            vec!["quorate_a_b", "quorate_c"]
        );
    }
}
