//! One round: a fresh pair of sides, the same operations to both, and the first answer in which they differ.

use tonic::Code;

use super::generate::Generator;
use super::known;
use super::ops::{Answer, Op, Step};
use super::report::{Counts, Difference};
use super::servers::Program;
use super::side::{Side, start_both};

/// What one round plays.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) ops: usize,
    /// Whether users are distinguished now and then.
    pub(crate) auth: bool,
    /// From which step on puts of the right side's are changed.
    pub(crate) planted: Option<usize>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Round {
    pub(crate) counts: Counts,
    pub(crate) difference: Option<Difference>,
}

/// Plays a round of drawn operations, up to the first difference that nobody meant.
pub(crate) async fn play(left: &Program, right: &Program, plan: &Plan) -> anyhow::Result<Round> {
    let mut generator = Generator::new(plan.seed, plan.auth, left.is_newer());
    let (mut left, mut right) = start_both(left, right).await?;
    let mut counts = Counts::default();
    let mut history: Vec<Step> = Vec::new();
    while history.len() < plan.ops {
        let steps = generator.batch(plan.ops - history.len());
        let mut changed = steps.clone();
        if plan.planted.is_some_and(|at| at <= history.len()) {
            plant(&mut changed);
        }
        let (answers, others) = tokio::join!(left.run(&steps), right.run(&changed));
        let found = differing(&steps, &answers, &others, &mut counts);
        // One that both sides do not survive is a difference, too: from what is comparable.
        let is_dead = |answer: &Answer| matches!(answer, Answer::Refused(Code::Unknown | Code::Unavailable, text) if !text.starts_with("etcdserver") && !text.starts_with("auth"));
        let found = found.or_else(|| {
            (left.last_words().is_some() || right.last_words().is_some()).then(|| {
                answers
                    .iter()
                    .position(is_dead)
                    .unwrap_or(answers.len() - 1)
            })
        });
        for (step, answer) in steps.iter().zip(&answers) {
            generator.learn(step, answer);
        }
        let begin = history.len();
        history.extend(steps);
        if let Some(at) = found {
            history.truncate(begin + at + 1);
            let pair = (&mut left, &mut right);
            let difference = difference(plan.seed, history, answers, others, at, pair);
            return Ok(Round {
                counts,
                difference: Some(difference),
            });
        }
    }
    Ok(Round {
        counts,
        difference: None,
    })
}

/// Plays given operations.
pub(crate) async fn replay(
    left: &Program,
    right: &Program,
    seed: u64,
    steps: &[Step],
) -> anyhow::Result<Option<Difference>> {
    let (mut left, mut right) = start_both(left, right).await?;
    let (answers, others) = tokio::join!(left.run(steps), right.run(steps));
    let mut counts = Counts::default();
    Ok(differing(steps, &answers, &others, &mut counts).map(|at| {
        let history = steps[..=at].to_vec();
        difference(seed, history, answers, others, at, (&mut left, &mut right))
    }))
}

fn difference(
    seed: u64,
    steps: Vec<Step>,
    mut answers: Vec<Answer>,
    mut others: Vec<Answer>,
    at: usize,
    (left, right): (&mut Side, &mut Side),
) -> Difference {
    Difference {
        seed,
        steps,
        left: (left.name, answers.swap_remove(at)),
        right: (right.name, others.swap_remove(at)),
        deaths: [left.last_words(), right.last_words()]
            .into_iter()
            .flatten()
            .collect(),
        is_shrunk: false,
    }
}

/// The first answer in which the sides differ without anybody having meant it.
fn differing(
    steps: &[Step],
    answers: &[Answer],
    others: &[Answer],
    counts: &mut Counts,
) -> Option<usize> {
    for (at, ((step, answer), other)) in steps.iter().zip(answers).zip(others).enumerate() {
        counts.operation(step, answer);
        if answer.is_same(other) {
            continue;
        }
        match known::explanation(step, answer, other) {
            Some(known) => counts.known(known),
            None => return Some(at),
        }
    }
    None
}

/// Changes the value of a put, where there is one. It may be refused, so the next batch changes one again.
fn plant(steps: &mut [Step]) {
    let mut puts = steps.iter_mut().filter_map(|step| match &mut step.op {
        Op::Put(put) if !put.ignore_value && !put.key.is_empty() && put.lease == 0 => Some(put),
        _ => None,
    });
    if let Some(put) = puts.next() {
        put.value = b"planted".to_vec().into();
    }
}
