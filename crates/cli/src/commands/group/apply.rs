//! `quorate group apply -f FILE`: makes the groups of a file be so.

use std::collections::BTreeMap;
use std::path::PathBuf;

use quorate_client::api::{BATCH_MAX, GroupSpec};
use quorate_types::{GroupName, Revision};
use serde::Serialize;
use serde_json::{Map, Value};

use super::all_groups;
use crate::args::Careful;
use crate::context::{Context, group_name};
use crate::exit::Failure;
use crate::output::{self, Format};

/// Applies a file of groups. Groups that the file does not name stay as they are.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ApplyArgs {
    /// TOML (`[[group]]` tables) or JSON (a list of objects), by its ending; each with `name` and any of the spec's fields. `-`: JSON on standard input.
    #[arg(short, long)]
    file: PathBuf,
    #[command(flatten)]
    careful: Careful,
}

/// What is to be done.
#[derive(Debug, Default, Serialize)]
struct Plan {
    create: Vec<GroupName>,
    update: Vec<GroupName>,
    unchanged: usize,
}

impl ApplyArgs {
    pub(super) async fn run(&self, context: &Context) -> anyhow::Result<u8> {
        let wanted = self.read()?;
        let client = context.client()?;
        let found: BTreeMap<GroupName, (GroupSpec, Revision)> =
            all_groups(&client, &common_prefix(&wanted), false)
                .await?
                .into_iter()
                .map(|group| (group.state.name, (group.spec, group.spec_revision)))
                .collect();
        let mut plan = Plan::default();
        let (mut create, mut update) = (Vec::new(), Vec::new());
        for (name, spec) in wanted {
            match found.get(&name) {
                None => {
                    plan.create.push(name.clone());
                    create.push((name, spec));
                }
                Some((before, _)) if *before == spec => plan.unchanged += 1,
                Some((_, revision)) => {
                    plan.update.push(name.clone());
                    update.push((name, spec, *revision));
                }
            }
        }
        if !self.careful.dry_run && !update.is_empty() {
            context
                .confirm(self.careful, &format!("Change {} groups?", update.len()))
                .await?;
        }
        if !self.careful.dry_run {
            for batch in create.chunks(BATCH_MAX) {
                client.create_groups(batch.to_vec()).await?;
            }
            for (name, spec, revision) in update {
                // Conditional on what was read: another's change in between is not lost.
                client.update_group(&name, spec, Some(revision)).await?;
            }
        }
        match context.format() {
            Format::Json => output::json(&plan)?,
            Format::Table => {
                let would = if self.careful.dry_run {
                    "would be "
                } else {
                    ""
                };
                for (what, names) in [("created", &plan.create), ("updated", &plan.update)] {
                    for name in names {
                        output::line(format!("{name} {would}{what}"))?;
                    }
                }
                let (created, updated) = (plan.create.len(), plan.update.len());
                output::line(format!(
                    "{created} {would}created, {updated} {would}updated, {} unchanged",
                    plan.unchanged
                ))?;
            }
        }
        Ok(0)
    }

    fn read(&self) -> anyhow::Result<Vec<(GroupName, GroupSpec)>> {
        let shown = self.file.display();
        let text = if self.file.as_os_str() == "-" {
            std::io::read_to_string(std::io::stdin())
        } else {
            std::fs::read_to_string(&self.file)
        };
        let text = text.map_err(|error| Failure::usage(format!("read `{shown}`: {error}")))?;
        let is_toml = self.file.extension().is_some_and(|ending| ending == "toml");
        parse(&text, is_toml).map_err(|message| {
            let hint = "each group has a `name` and any of the fields that `quorate group show NAME -o json` lists under `spec`";
            Failure::usage(format!("read `{shown}`: {message}")).with_hint(hint).into()
        })
    }
}

/// The longest prefix of all names: what has to be read to compare.
fn common_prefix(wanted: &[(GroupName, GroupSpec)]) -> String {
    let mut names = wanted.iter().map(|(name, _)| name.as_str());
    let Some(first) = names.next() else {
        return String::new();
    };
    let shared = names.fold(first.chars().count(), |shared, name| {
        let same = first
            .chars()
            .zip(name.chars())
            .take_while(|(a, b)| a == b)
            .count();
        shared.min(same)
    });
    first.chars().take(shared).collect()
}

fn parse(text: &str, is_toml: bool) -> Result<Vec<(GroupName, GroupSpec)>, String> {
    let value: Value = if is_toml {
        toml::from_str(text).map_err(|error| error.to_string())?
    } else {
        serde_json::from_str(text).map_err(|error| error.to_string())?
    };
    let items = match value {
        Value::Array(items) => items,
        Value::Object(mut file) if file.len() == 1 => match file.remove("group") {
            Some(Value::Array(items)) => items,
            _ => return Err("expected a list of groups under `group`".to_owned()),
        },
        _ => return Err("expected a list of groups".to_owned()),
    };
    let mut groups = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for (place, item) in items.into_iter().enumerate() {
        let Value::Object(fields) = item else {
            return Err(format!("group {}: not a table of fields", place + 1));
        };
        let (name, spec) =
            parse_group(fields).map_err(|error| format!("group {}: {error}", place + 1))?;
        if !seen.insert(name.clone()) {
            return Err(format!("group {}: `{name}` is listed twice", place + 1));
        }
        groups.push((name, spec));
    }
    Ok(groups)
}

fn parse_group(mut fields: Map<String, Value>) -> Result<(GroupName, GroupSpec), String> {
    let Some(Value::String(name)) = fields.remove("name") else {
        return Err("it has no `name`".to_owned());
    };
    let name = group_name(&name).map_err(|error| error.to_string())?;
    let spec = serde_json::from_value(Value::Object(fields))
        .map_err(|error| format!("`{name}`: {error}"))?;
    Ok((name, spec))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn toml_and_json_say_the_same() {
        let toml = "[[group]]\nname = 'orders/1'\nreadiness = true\n[[group]]\nname = 'orders/2'\nrequire = { zone = 'a' }\n";
        let json = r#"[{"name": "orders/1", "readiness": true}, {"name": "orders/2", "require": {"zone": "a"}}]"#;
        let groups = parse(toml, true).unwrap();
        assert_eq!(groups, parse(json, false).unwrap());
        assert!(groups[0].1.readiness && groups[1].1.require["zone"] == "a");
        assert_eq!(common_prefix(&groups), "orders/");
    }

    #[test]
    fn mistakes_are_named_with_the_group_they_are_in() {
        let check = |json: &str, needle: &str| {
            let error = parse(json, false).unwrap_err();
            assert!(error.contains(needle), "{error:?} does not say {needle:?}");
        };
        check("{}", "list of groups");
        check("[1]", "group 1");
        check(r#"[{"readiness": true}]"#, "no `name`");
        check(
            r#"[{"name": "a"}, {"name": "b", "readyness": true}]"#,
            "readyness",
        );
        check(r#"[{"name": "a"}, {"name": "a"}]"#, "listed twice");
        check(r#"[{"name": "a\u0007"}]"#, "control character");
    }
}
