//! The small language of `quorate kv txn`: conditions, and the commands of `quorate kv` themselves.

use clap::Parser;
use quorate_client::kv::pb;
use quorate_client::kv::pb::compare::TargetUnion;
use quorate_client::kv::pb::request_op::Request;
use quorate_client::kv::{KeyRange, pb::compare::CompareResult, pb::compare::CompareTarget};

use super::encoding::Encoding;
use super::lease_id;
use super::{read::GetArgs, write::DelArgs, write::PutArgs};
use crate::exit::Failure;

/// What `--help` says of it.
pub(super) const HELP: &str = "\
A transaction has conditions (if), what is done where all of them hold (then), and what is done otherwise (else). They are given by
--if, --then and --else, each as often as needed, or, where none of these is given, on standard input, a line each:

  if
    version(jobs/1) = 0
    value(config/mode) = \"on call\"
  then
    put jobs/1 n1 --lease s12
  else
    get jobs/1
    get config/ --prefix

A condition compares version, create, mod (revisions), value or lease of a key with =, !=, < or >; a key that is not there has version
0. `version(prefix jobs/) > 0` must hold for every key below jobs/. What is done are get, put and del, with the flags of these commands.
Words with blanks or signs are quoted, 'as they are' or \"with \\n, \\t, \\\", \\\\ and \\xff\". Lines that begin with # say nothing.

Exit code 4: the conditions did not hold, and there is no else: nothing was done.

Examples:
  quorate kv txn --if 'version(jobs/1) = 0' --then 'put jobs/1 n1' --else 'get jobs/1'
  quorate kv txn < change.txt";

/// The parts, a statement each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Script {
    pub(super) conditions: Vec<String>,
    pub(super) then: Vec<String>,
    pub(super) otherwise: Vec<String>,
}

impl Script {
    /// Reads the form that has lines.
    pub(super) fn from_lines(text: &str) -> anyhow::Result<Self> {
        let mut script = Self::default();
        let mut part: Option<&str> = None;
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let statement = if matches!(word, "if" | "then" | "else") {
                part = Some(word);
                rest.trim()
            } else {
                line
            };
            let statements = match part {
                Some("if") => &mut script.conditions,
                Some("then") => &mut script.then,
                Some(_) => &mut script.otherwise,
                None => {
                    let failure = Failure::usage(format!("`{line}` is below no if, then or else"));
                    return Err(failure
                        .with_hint("`quorate kv txn --help` shows an example")
                        .into());
                }
            };
            if !statement.is_empty() {
                statements.push(statement.to_owned());
            }
        }
        Ok(script)
    }

    /// The message.
    pub(super) fn request(&self, encoding: Encoding) -> anyhow::Result<pb::TxnRequest> {
        let operations = |lines: &[String]| -> anyhow::Result<Vec<pb::RequestOp>> {
            lines.iter().map(|line| operation(line, encoding)).collect()
        };
        let compare = self.conditions.iter().map(|line| condition(line, encoding));
        let request = pb::TxnRequest {
            compare: compare.collect::<anyhow::Result<_>>()?,
            success: operations(&self.then)?,
            failure: operations(&self.otherwise)?,
        };
        if request.success.is_empty() && request.failure.is_empty() && request.compare.is_empty() {
            let failure = Failure::usage("the transaction is empty");
            return Err(failure
                .with_hint("`quorate kv txn --help` shows an example")
                .into());
        }
        Ok(request)
    }
}

/// `get`, `put` or `del`, as on the command line.
#[derive(Parser)]
#[command(
    no_binary_name = true,
    disable_help_flag = true,
    disable_help_subcommand = true
)]
enum Operation {
    Get(GetArgs),
    Put(PutArgs),
    Del(DelArgs),
}

fn operation(line: &str, encoding: Encoding) -> anyhow::Result<pb::RequestOp> {
    let bad = |why: String| Failure::usage(format!("`{line}`: {why}"));
    let words = words(line).map_err(bad)?;
    let words = words.into_iter().map(|word| word.text);
    let parsed = Operation::try_parse_from(words).map_err(|error| {
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default();
        bad(first.strip_prefix("error: ").unwrap_or(first).to_owned())
    })?;
    let request = match parsed {
        Operation::Get(get) => Request::RequestRange(get.read(encoding)?.into_request()),
        Operation::Put(put) => {
            let no_value =
                || Err(bad("a put within a transaction needs its value".to_owned()).into());
            Request::RequestPut(put.request(encoding, no_value)?)
        }
        Operation::Del(del) => Request::RequestDeleteRange(del.request(encoding)?),
    };
    Ok(pb::RequestOp {
        request: Some(request),
    })
}

fn condition(line: &str, encoding: Encoding) -> anyhow::Result<pb::Compare> {
    let bad = |why: &str| Failure::usage(format!("condition `{line}`: {why}"));
    let words = signs(line).map_err(|why| bad(&why))?;
    let words: Vec<(&str, bool)> = words
        .iter()
        .map(|word| (word.text.as_str(), word.quoted))
        .collect();
    let (target, range, result, operand) =
        match words[..] {
            [
                (target, false),
                ("(", false),
                (key, _),
                (")", false),
                (sign, false),
                (operand, _),
            ] => (target, KeyRange::key(encoding.read(key)?), sign, operand),
            [
                (target, false),
                ("(", false),
                ("prefix", false),
                (key, _),
                (")", false),
                (sign, false),
                (operand, _),
            ] => (target, KeyRange::prefix(encoding.read(key)?), sign, operand),
            _ => return Err(bad(
                "write it as `version(KEY) = 0`; quote keys and values that hold blanks or signs",
            )
            .into()),
        };
    let result = match result {
        "=" => CompareResult::Equal,
        "!=" => CompareResult::NotEqual,
        "<" => CompareResult::Less,
        ">" => CompareResult::Greater,
        _ => return Err(bad("compare with =, !=, < or >").into()),
    };
    let number = || {
        let parsed = operand.parse::<i64>();
        parsed.map_err(|_| bad(&format!("`{operand}` is no number")))
    };
    let (target, union) = match target {
        "version" => (CompareTarget::Version, TargetUnion::Version(number()?)),
        "create" => (
            CompareTarget::Create,
            TargetUnion::CreateRevision(number()?),
        ),
        "mod" => (CompareTarget::Mod, TargetUnion::ModRevision(number()?)),
        "value" => {
            let value = encoding.read(operand)?.into();
            (CompareTarget::Value, TargetUnion::Value(value))
        }
        "lease" if operand == "0" => (CompareTarget::Lease, TargetUnion::Lease(0)),
        "lease" => {
            let lease = lease_id(operand).map_err(|why| bad(&why))?;
            (CompareTarget::Lease, TargetUnion::Lease(lease))
        }
        _ => return Err(bad("compare version, create, mod, value or lease").into()),
    };
    let (key, range_end) = range.into_parts();
    Ok(pb::Compare {
        result: result.into(),
        target: target.into(),
        key,
        range_end,
        target_union: Some(union),
    })
}

#[derive(Debug, PartialEq, Eq)]
struct Word {
    text: String,
    /// Then it is no sign and no keyword.
    quoted: bool,
}

/// Splits at blanks, as a shell would.
fn words(line: &str) -> Result<Vec<Word>, String> {
    split(line, "")
}

/// Splits at blanks and around signs.
fn signs(line: &str) -> Result<Vec<Word>, String> {
    split(line, "()=<>!")
}

fn split(line: &str, signs: &str) -> Result<Vec<Word>, String> {
    let mut words: Vec<Word> = Vec::new();
    let mut current: Option<Word> = None;
    let mut rest = line.chars().peekable();
    while let Some(next) = rest.next() {
        if next.is_whitespace() {
            words.extend(current.take());
        } else if signs.contains(next) {
            words.extend(current.take());
            let mut text = next.to_string();
            // The only sign of two characters.
            if next == '!' && rest.next_if_eq(&'=').is_some() {
                text.push('=');
            }
            words.push(Word {
                text,
                quoted: false,
            });
        } else {
            let word = current.get_or_insert(Word {
                text: String::new(),
                quoted: false,
            });
            match next {
                '\'' | '"' => {
                    word.quoted = true;
                    quoted(next, &mut rest, &mut word.text)?;
                }
                other => word.text.push(other),
            }
        }
    }
    words.extend(current);
    Ok(words)
}

/// Up to the closing quote.
fn quoted(
    quote: char,
    rest: &mut impl Iterator<Item = char>,
    text: &mut String,
) -> Result<(), String> {
    while let Some(next) = rest.next() {
        match next {
            _ if next == quote => return Ok(()),
            '\\' if quote == '"' => match rest.next() {
                Some('n') => text.push('\n'),
                Some('t') => text.push('\t'),
                Some(same @ ('"' | '\\')) => text.push(same),
                Some('x') => {
                    let digits: String = rest.by_ref().take(2).collect();
                    let byte = u8::from_str_radix(&digits, 16).ok().filter(u8::is_ascii);
                    // Beyond ASCII a single byte is no text.
                    let byte = byte.ok_or_else(|| {
                        format!("\\x{digits} is not below \\x80; --encoding writes such bytes")
                    })?;
                    text.push(char::from(byte));
                }
                other => return Err(format!("\\{} means nothing", other.unwrap_or(' '))),
            },
            other => text.push(other),
        }
    }
    Err(format!("{quote} is not closed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(line: &str) -> Result<pb::Compare, String> {
        condition(line, Encoding::Text).map_err(|error| error.to_string())
    }

    #[test]
    fn conditions_are_read() {
        let read = compare("version(jobs/1) = 0").unwrap();
        assert_eq!(
            (&read.key[..], read.target_union),
            (&b"jobs/1"[..], Some(TargetUnion::Version(0)))
        );
        let read = compare(r#"value("a (b)")!="x = \"y\"""#).unwrap();
        assert_eq!(&read.key[..], b"a (b)");
        assert_eq!(
            read.target_union,
            Some(TargetUnion::Value("x = \"y\"".into()))
        );
        assert_eq!(read.result, CompareResult::NotEqual as i32);
        let read = compare("mod(prefix jobs/) < 12").unwrap();
        assert_eq!(
            (&read.key[..], &read.range_end[..]),
            (&b"jobs/"[..], &b"jobs0"[..])
        );
        let read = compare("lease('prefix') > s3").unwrap();
        assert_eq!(read.target_union, Some(TargetUnion::Lease(3)));
        for bad in [
            "",
            "version",
            "version(a)",
            "version(a) == 1",
            "version(a) = x",
            "size(a) = 1",
            "value(a b) = 1",
            "value(\"a) = 1",
            "lease(a) = -1",
        ] {
            assert!(compare(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn operations_are_the_commands() {
        let read = operation("put 'a b' \"1\\n\" --lease ff --prev", Encoding::Text).unwrap();
        let Some(Request::RequestPut(put)) = read.request else {
            panic!("{read:?}")
        };
        assert_eq!(
            (&put.key[..], &put.value[..], put.lease, put.prev_kv),
            (&b"a b"[..], &b"1\n"[..], 255, true)
        );
        let read = operation("get a --prefix --limit 3 --sort mod", Encoding::Text).unwrap();
        let Some(Request::RequestRange(get)) = read.request else {
            panic!("{read:?}")
        };
        assert_eq!((&get.range_end[..], get.limit), (&b"b"[..], 3));
        let read = operation("del 61 --from-key", Encoding::Hex).unwrap();
        let Some(Request::RequestDeleteRange(del)) = read.request else {
            panic!("{read:?}")
        };
        assert_eq!((&del.key[..], &del.range_end[..]), (&b"a"[..], &b"\0"[..]));
        for bad in [
            "",
            "put a",
            "watch a",
            "get",
            "get a b --prefix",
            "put a 1 --never",
        ] {
            assert!(operation(bad, Encoding::Text).is_err(), "{bad}");
        }
    }

    #[test]
    fn lines_belong_to_the_part_above_them() {
        let text = "# claim\nif version(a) = 0\n  mod(b) > 1\nthen\n  put a 1\n\n else get a\n";
        let owned = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
        let expected = Script {
            conditions: owned(&["version(a) = 0", "mod(b) > 1"]),
            then: owned(&["put a 1"]),
            otherwise: owned(&["get a"]),
        };
        assert_eq!(Script::from_lines(text).unwrap(), expected);
        assert!(Script::from_lines("put a 1").is_err());
        assert!(Script::default().request(Encoding::Text).is_err());
    }
}
