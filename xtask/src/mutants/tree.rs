//! The scratch copy of the work tree. Only what differs is written, so that cargo builds only what changed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use super::list::Mutant;
use crate::workspace;

/// A file as a mutant makes it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Edited {
    path: String,
    before: String,
    after: String,
}

/// Carries out a mutant's changes in memory. The error says why it no longer applies.
pub(crate) fn edited(root: &Path, mutant: &Mutant) -> anyhow::Result<Vec<Edited>> {
    let mut edited: Vec<Edited> = Vec::new();
    for change in mutant.changes() {
        let at = match edited.iter().position(|edit| edit.path == change.file) {
            Some(at) => at,
            None => {
                let before = workspace::read(&root.join(&change.file))?;
                edited.push(Edited {
                    path: change.file.clone(),
                    after: before.clone(),
                    before,
                });
                edited.len() - 1
            }
        };
        let text = &mut edited[at].after;
        match text.matches(&change.find).count() {
            1 => *text = text.replacen(&change.find, &change.replace, 1),
            count => bail!(
                "stale: what it looks for occurs {count} times in `{}`, expected once: {:?}",
                change.file,
                change.find
            ),
        }
    }
    if let Some(same) = edited.iter().find(|edit| edit.before == edit.after) {
        bail!("it changes nothing in `{}`", same.path);
    }
    Ok(edited)
}

/// The copy.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) root: PathBuf,
    /// Where its builds go: beside it, so that a fresh copy still finds them.
    pub(crate) target: PathBuf,
    /// What is changed at the moment: path and original text.
    planted: Vec<(String, String)>,
}

impl Tree {
    /// Makes the copy equal to the work tree, or to its last commit.
    pub(crate) fn copy(root: &Path, scratch: &Path, committed: bool) -> anyhow::Result<Self> {
        let tree = scratch.join("tree");
        std::fs::create_dir_all(&tree).with_context(|| format!("create `{}`", tree.display()))?;
        let arguments: &[&str] = if committed {
            &["ls-tree", "-r", "-z", "--name-only", "HEAD"]
        } else {
            &[
                "ls-files",
                "-z",
                "--cached",
                "--others",
                "--exclude-standard",
            ]
        };
        let listed = git(root, arguments)?;
        let mut names = BTreeSet::new();
        for name in listed
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
        {
            let name = std::str::from_utf8(name).context("a file's name is not UTF-8")?;
            let content = if committed {
                git(root, &["show", &format!("HEAD:{name}")])?
            } else {
                match std::fs::read(root.join(name)) {
                    Ok(content) => content,
                    // Deleted, and not committed so.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error).with_context(|| format!("read `{name}`")),
                }
            };
            names.insert(tree.join(name));
            let path = tree.join(name);
            if std::fs::read(&path).ok().as_ref() != Some(&content) {
                let folder = path.parent().expect("a file lies in a folder");
                std::fs::create_dir_all(folder)
                    .with_context(|| format!("create `{}`", folder.display()))?;
                write(&path, &content)?;
            }
        }
        for path in workspace::files(&tree, "")? {
            if !names.contains(&path) {
                std::fs::remove_file(&path)
                    .with_context(|| format!("remove `{}`", path.display()))?;
            }
        }
        Ok(Self {
            root: tree,
            target: scratch.join("target"),
            planted: Vec::new(),
        })
    }

    /// Writes a mutant's files.
    pub(crate) fn plant(&mut self, edited: Vec<Edited>) -> anyhow::Result<()> {
        assert!(self.planted.is_empty(), "two mutants at once");
        for edit in edited {
            write(&self.root.join(&edit.path), edit.after.as_bytes())?;
            self.planted.push((edit.path, edit.before));
        }
        Ok(())
    }

    /// Restores them.
    pub(crate) fn revert(&mut self) -> anyhow::Result<()> {
        for (path, original) in std::mem::take(&mut self.planted) {
            write(&self.root.join(path), original.as_bytes())?;
        }
        Ok(())
    }
}

fn write(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    std::fs::write(path, content).with_context(|| format!("write `{}`", path.display()))
}

fn git(root: &Path, arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
    let output = Command::new("git")
        .args(arguments)
        .current_dir(root)
        .output()
        .context("start `git`")?;
    if !output.status.success() {
        bail!(
            "`git {}` failed: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(output.stdout)
}
