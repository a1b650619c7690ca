//! The differences that are meant, each with its reason. `docs/etcd-compatibility.md` tells a user of each.

mod ties;

use tonic::Code;

use super::ops::{Answer, Op, Step, Who};

/// A difference that is meant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    /// Its name in reports.
    pub(crate) name: &'static str,
    /// Why it is.
    pub(crate) reason: &'static str,
    /// Whether it is this one: the step, etcd's answer, ours.
    explains: fn(&Step, &Answer, &Answer) -> bool,
}

/// All of them.
pub(crate) const KNOWN: &[Known] = &[
    Known {
        name: "order-of-ties",
        reason: "what is equal by the sort target comes in the order of keys, a role's permissions of one key in that of being granted; etcd's sort leaves the order of more than twelve open",
        explains: |step, etcd, ours| {
            let (mut etcd, mut ours) = (etcd.clone(), ours.clone());
            ties::settle(&step.op, &mut etcd, &mut ours);
            etcd == ours
        },
    },
    Known {
        name: "hash-at-compacted",
        reason: "the hash at the compacted revision itself is told, as in etcd 3.5; 3.4 refuses it",
        explains: |step, etcd, ours| match (&step.op, etcd, ours) {
            (Op::HashKv(asked), Answer::Refused(Code::OutOfRange, _), Answer::HashKv(ours)) => {
                asked.revision == ours.compact_revision
            }
            _ => false,
        },
    },
    Known {
        name: "hash-of-earlier-compactions",
        reason: "etcd 3.5 remembers the hashes that it made at its last compactions, and tells those, with what was compacted then, for the revisions up to them and for 0",
        explains: |step, etcd, ours| match (&step.op, etcd, ours) {
            (Op::HashKv(asked), Answer::HashKv(etcd), Answer::Refused(Code::OutOfRange, text)) => {
                asked.revision > etcd.compact_revision && text.ends_with("has been compacted")
            }
            (Op::HashKv(asked), Answer::HashKv(etcd), Answer::HashKv(ours)) => {
                etcd.header == ours.header
                    && (asked.revision == ours.compact_revision || asked.revision == 0)
                    && etcd.compact_revision < ours.compact_revision
                    && ours.compact_revision > 0
            }
            _ => false,
        },
    },
    Known {
        name: "wrong-twice",
        reason: "who asks is checked before what is asked; etcd checks a request's form first. Either refusal is right",
        explains: |_, etcd, ours| match (etcd, ours) {
            (Answer::Refused(Code::InvalidArgument, _), Answer::Refused(code, text)) => {
                matches!(code, Code::Unauthenticated | Code::PermissionDenied)
                    || text == "etcdserver: user name is empty"
            }
            _ => false,
        },
    },
    Known {
        name: "header-of-alarms",
        reason: "as in etcd 3.5; 3.4 answers without",
        explains: |_, etcd, ours| match (etcd, ours) {
            (Answer::Alarm(etcd), Answer::Alarm(ours)) => {
                etcd.header.is_none() && etcd.alarms == ours.alarms
            }
            _ => false,
        },
    },
    Known {
        name: "token-while-off",
        reason: "etcd 3.4 refuses an unknown token while authentication is off; ours takes no notice of it, as etcd 3.5",
        explains: |step, etcd, ours| {
            step.who == Who::Forger
                && matches!(etcd, Answer::Refused(Code::Unauthenticated, _))
                && !matches!(ours, Answer::Refused(Code::Unauthenticated, _))
                && matches!(step.op, Op::Range(_))
        },
    },
    Known {
        name: "compaction-at-zero",
        reason: "etcd takes a compaction at revision 0, before any other, and says -1 before it and 0 after it; ours refuses it, and says 0",
        explains: |step, etcd, ours| match (&step.op, etcd, ours) {
            (Op::Compact(compact), Answer::Compact(_), Answer::Refused(..)) => {
                compact.revision == 0
            }
            (Op::HashKv(_), Answer::HashKv(etcd), Answer::HashKv(ours)) => {
                etcd.header == ours.header
                    && etcd.compact_revision <= 0
                    && ours.compact_revision <= 0
            }
            _ => false,
        },
    },
];

/// The meant difference that explains these answers.
pub(crate) fn explanation(step: &Step, etcd: &Answer, ours: &Answer) -> Option<&'static Known> {
    KNOWN
        .iter()
        .find(|known| (known.explains)(step, etcd, ours))
}
