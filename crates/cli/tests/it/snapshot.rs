//! Output compared with files; `UPDATE_EXPECT=1` writes them anew.

use std::path::Path;

/// Compares with `tests/it/expected/NAME`.
#[track_caller]
pub(crate) fn check(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it/expected")
        .join(name);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, actual).expect("the expected file can be written");
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        expected == actual,
        "{name} differs; UPDATE_EXPECT=1 writes it anew\n--- expected\n{expected}\n--- actual\n{actual}"
    );
}

/// Replaces what differs from run to run: ports, cluster ids, times.
pub(crate) fn steady(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let words: Vec<String> = line.split(' ').map(steady_word).collect();
        out.push_str(&collapse(&words.join(" ")));
        out.push('\n');
    }
    out
}

/// Columns are as wide as what was replaced: their width says nothing.
fn collapse(line: &str) -> String {
    let trimmed = line.trim_start();
    let indent = line.len() - trimmed.len();
    let words: Vec<&str> = trimmed.split(' ').filter(|word| !word.is_empty()).collect();
    format!("{}{}", " ".repeat(indent), words.join(" "))
}

fn steady_word(word: &str) -> String {
    if let Some((before, rest)) = word.split_once("127.0.0.1:") {
        let after = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        return format!("{before}127.0.0.1:PORT{after}");
    }
    let bare = word.trim_end_matches([',', ';']);
    if bare.len() == 16 && bare.chars().all(|c| c.is_ascii_hexdigit()) {
        return word.replace(bare, "CLUSTER");
    }
    word.to_owned()
}

#[test]
fn ports_and_cluster_ids_are_replaced_and_the_rest_stays() {
    let text =
        "cluster 0123456789abcdef, at  http://127.0.0.1:12345, and 127.0.0.1:1\n  indented 0123\n";
    assert_eq!(
        steady(text),
        "cluster CLUSTER, at http://127.0.0.1:PORT, and 127.0.0.1:PORT\n  indented 0123\n"
    );
}
