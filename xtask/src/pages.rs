//! What our pages list of the code is complete and exists: configuration fields, error codes, metrics, checkers.

use std::collections::BTreeMap;
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
    let mut proto = String::new();
    for path in workspace::files(&root.join("proto/etcd"), ".proto")? {
        let text = workspace::read(&path)?;
        for name in named_in_proto(&text) {
            if !etcd_page.contains(&format!("`{name}`")) {
                problems.push(format!(
                    "docs/etcd-compatibility.md: `{name}` of {} is missing",
                    workspace::shown(&path, root)
                ));
            }
        }
        proto.push_str(&text);
    }
    problems.extend(
        missing_in_rows(&proto, &etcd_page)
            .into_iter()
            .map(|(call, field)| {
                format!("docs/etcd-compatibility.md: the row of `{call}` does not name `{field}`")
            }),
    );

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

/// The fields of calls' requests and answers that the call's own row of a page does not name; with the field `*`, calls without a row.
fn missing_in_rows(proto: &str, page: &str) -> Vec<(String, String)> {
    let code = || {
        proto
            .lines()
            .map(|line| line.split("//").next().unwrap_or(line).trim())
    };
    let mut fields: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut message = String::new();
    for line in code() {
        if let Some(rest) = line.strip_prefix("message ") {
            let name = rest.split([' ', '{']).next().unwrap_or(rest);
            message.clear();
            message.push_str(name);
        }
        if line.starts_with("service ") {
            message.clear();
        }
        let named = named_in_proto(line);
        fields.entry(message.clone()).or_default().extend(named);
    }
    let mut missing = Vec::new();
    for call in code().filter_map(|line| line.strip_prefix("rpc ")) {
        let words: Vec<&str> = call
            .split([' ', '(', ')', ';'])
            .filter(|word| !matches!(*word, "" | "returns" | "stream"))
            .collect();
        let [name, of @ ..] = &words[..] else {
            continue;
        };
        let quoted = format!("`{name}`");
        let cells = |row: &&str| {
            row.split('|')
                .nth(1)
                .is_some_and(|cell| cell.contains(&quoted))
        };
        let rows: String = page.lines().filter(cells).collect();
        if rows.is_empty() {
            missing.push(((*name).to_owned(), "*".to_owned()));
            continue;
        }
        let named = of.iter().filter_map(|message| fields.get(*message));
        for field in named.flatten() {
            if !rows.contains(&format!("`{field}`")) {
                missing.push(((*name).to_owned(), field.clone()));
            }
        }
    }
    missing
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
    fn a_row_names_the_fields_of_its_call() {
        let proto = "service S {\n  rpc Ask(A) returns (stream B);\n  rpc Tell(B) returns (A);\n}\nmessage A {\n  bytes key = 1;\n}\nmessage B {\n  int64 count = 1;\n}\n";
        let page = "| `Ask` | `key` | `count` |\n| else | `key`, `Tell` |\n";
        let missing = |call: &str, field: &str| (call.to_owned(), field.to_owned());
        assert_eq!(missing_in_rows(proto, page), vec![missing("Tell", "*")]);
        let page = "| `Ask`, `Tell` | `key` | |\n";
        let expected = vec![missing("Ask", "count"), missing("Tell", "count")];
        assert_eq!(missing_in_rows(proto, page), expected);
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
