//! The commands that our pages show exist, with the flags shown.
//!
//! Only a test: it asks the binary that `cargo test --workspace` has just built for its help.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::workspace;

/// A `quorate ...` line of a page: the words that name the command, and the flags given to it.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    page: String,
    words: Vec<String>,
    flags: Vec<String>,
}

fn shown_in(page: &str, text: &str) -> Vec<Shown> {
    let mut fenced = false;
    let mut found = Vec::new();
    for line in text.replace("\\\n", " ").lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        let line = line.trim();
        let shown: Vec<&str> = if fenced {
            vec![line.strip_prefix("$ ").unwrap_or(line)]
        } else {
            // Inside of backticks is every other piece.
            line.split('`').skip(1).step_by(2).collect()
        };
        let commands = shown.into_iter().filter_map(|shown| {
            let shown = shown.strip_prefix("./target/release/").unwrap_or(shown);
            shown.strip_prefix("quorate ")
        });
        found.extend(commands.map(|rest| parse(page, rest)));
    }
    found
}

fn parse(page: &str, rest: &str) -> Shown {
    // What follows `--` is a command that `contend` runs, what follows a pipe or `#` is the shell's.
    let words: Vec<&str> = rest
        .split_whitespace()
        .take_while(|word| !matches!(*word, "--" | "|" | "#" | "&" | "&&" | ">" | "\\"))
        .collect();
    let is_name = |word: &&&str| {
        word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-')
    };
    let names = words
        .iter()
        .take_while(is_name)
        .map(|word| (*word).to_owned())
        .collect();
    let flags = words
        .iter()
        .filter(|word| word.starts_with("--"))
        .map(|word| word.split('=').next().unwrap_or(word).to_owned())
        .collect();
    Shown {
        page: page.to_owned(),
        words: names,
        flags,
    }
}

/// The binary beside this test's, where one was built.
fn binary() -> Option<PathBuf> {
    let test = std::env::current_exe().expect("a test has a path");
    let binary = test.parent().and_then(Path::parent)?.join("quorate");
    binary.exists().then_some(binary)
}

#[test]
fn commands_shown_in_our_pages_exist() {
    let Some(binary) = binary() else {
        eprintln!(
            "SKIPPED: no `quorate` binary beside this test; `cargo test --workspace` builds it"
        );
        return;
    };
    let root = workspace::root();
    for path in workspace::files(&root, ".md").unwrap() {
        let page = workspace::shown(&path, &root);
        for Shown { page, words, flags } in shown_in(&page, &workspace::read(&path).unwrap()) {
            let output = Command::new(&binary)
                .args(&words)
                .arg("--help")
                .output()
                .unwrap();
            let help = String::from_utf8_lossy(&output.stdout);
            assert!(
                output.status.success(),
                "{page}: `quorate {}` is no command",
                words.join(" ")
            );
            for flag in flags {
                assert!(
                    help.contains(&flag),
                    "{page}: `quorate {}` has no flag `{flag}`",
                    words.join(" ")
                );
            }
        }
    }
}

#[test]
fn words_and_flags_of_shown_commands_are_found() {
    let text = "quorate no fence, but `quorate why GROUP`\n```sh\n$ quorate group create orders/0001 --weight=2 -o json\nquorate contend a/1 \\\n  --ttl 1s -- run --fast\n```\n";
    let found = shown_in("p.md", text);
    assert_eq!(found.len(), 3, "{found:?}");
    assert_eq!(
        (found[0].words.join(" "), found[0].flags.join(" ")),
        ("why".into(), String::new())
    );
    assert_eq!(
        (found[1].words.join(" "), found[1].flags.join(" ")),
        ("group create".into(), "--weight".into())
    );
    assert_eq!(
        (found[2].words.join(" "), found[2].flags.join(" ")),
        ("contend".into(), "--ttl".into())
    );
}
