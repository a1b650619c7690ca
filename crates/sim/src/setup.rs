//! What one seed's world is made of, before anything goes wrong.

use std::time::Duration;

use quorate_consensus::Timing;
use quorate_types::DriftBound;

use crate::faults::{self, Fault};
use crate::network::Quality;

/// How clients behave; chances are per cent.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// A node resigns a leadership, per beat.
    pub resign: u32,
    /// A node declines a handover that it is asked for.
    pub decline: u32,
    /// A node never answers an order (a precondition never met, a drain never finished).
    pub ignore: u32,
    /// A node reports that it cannot prepare.
    pub fail: u32,
    /// A node withdraws, or stands in another way, per beat.
    pub restand: u32,
    /// A node closes its session, per beat.
    pub close: u32,
    /// A node sends keep-alives to any server, not only to the one it listens to.
    pub wander: bool,
    /// How long reactions take.
    pub reaction_max: Duration,
    /// Force transfers, deletions and revocations, per caller's operation.
    pub violence: u32,
}

/// What may be said of clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clocks {
    /// Any two rates differ by no more than the bound that the code is told.
    WithinBound,
    /// They differ by more, jump, and stand still: then only guarantee 4 and those of the backbone hold.
    BeyondBound,
}

/// One seed's world.
#[derive(Clone, Debug)]
pub struct Setup {
    /// How many servers.
    pub replicas: usize,
    /// How many nodes of the service.
    pub nodes: usize,
    /// How many callers without a session.
    pub callers: usize,
    /// How many groups' names there are.
    pub groups: usize,
    /// The backbone's timeouts.
    pub timing: Timing,
    /// The bound on clock rates that the code is told.
    pub drift: DriftBound,
    /// What may be said of clocks.
    pub clocks: Clocks,
    /// Clocks run off by up to this much, either way.
    pub rate_ppm_max: i32,
    /// How long faults strike.
    pub faulty_for: Duration,
    /// How long the calm lasts that follows, at least.
    pub calm_for: Duration,
    /// The calm goes on until clients had so many operations answered.
    pub operations_min: u64,
    /// The network.
    pub quality: Quality,
    /// A sync takes this long, and up to four times as long.
    pub sync: Duration,
    /// A snapshot after so many entries.
    pub snapshot_entries: u64,
    /// Entries kept before a snapshot.
    pub snapshot_retain: u64,
    /// Bytes of a snapshot per message.
    pub chunk_bytes: usize,
    /// Every so many peer messages, one goes through the codec.
    pub codec_every: u64,
    /// What sessions live for.
    pub ttl_ms: (u64, u64),
    /// How many groups each node leads at most; by the node where none is given.
    pub tenures_max: Option<u32>,
    /// How long a caller thinks between operations, at most.
    pub think_max: Duration,
    /// How clients behave while faults strike.
    pub habits: Habits,
    /// What goes wrong, in order.
    pub plan: Vec<(Duration, Fault)>,
}

impl Setup {
    /// Draws a world from a seed.
    #[must_use]
    pub fn from_seed(seed: u64, replicas: Option<usize>) -> Self {
        let mut random = fastrand::Rng::with_seed(seed ^ 0x5e_7009);
        let drawn = [3, 3, 3, 3, 5, 5, 7, 1][random.usize(..8)];
        let replicas = replicas.unwrap_or(drawn);
        let heartbeat_ms = [40, 60, 100][random.usize(..3)];
        let detection_ms = heartbeat_ms * random.u64(5..=10);
        let timing = Timing {
            heartbeat_interval: Duration::from_millis(heartbeat_ms),
            detection_timeout: Duration::from_millis(detection_ms),
            election_jitter: Duration::from_millis(detection_ms * random.u64(30..=100) / 100),
        };
        let far = random.u8(..4) == 0;
        let noisy = random.bool();
        let quality = Quality {
            delay_min: Duration::from_micros(if far {
                random.u64(1_000..8_000)
            } else {
                random.u64(50..500)
            }),
            delay_mean: Duration::from_micros(if far {
                random.u64(1_000..4_000)
            } else {
                random.u64(50..1_000)
            }),
            loss_ppm: if noisy { random.u32(0..20_000) } else { 0 },
            duplicate_ppm: if random.bool() {
                random.u32(0..30_000)
            } else {
                0
            },
            reorder_ppm: if random.bool() {
                random.u32(0..30_000)
            } else {
                0
            },
        };
        let nodes = random.usize(3..=6);
        let mut some = |most: u32| {
            if random.bool() {
                random.u32(0..=most)
            } else {
                0
            }
        };
        let habits = Habits {
            resign: some(6),
            decline: some(40),
            ignore: some(30),
            fail: some(30),
            restand: some(5),
            close: some(1),
            violence: some(15),
            wander: random.u8(..4) == 0,
            reaction_max: Duration::from_millis(random.u64(1..400)),
        };
        let ttl_min = random.u64(300..1_500);
        let ttl_ms = (ttl_min, ttl_min + random.u64(0..1_500));
        // Most are short, since most faults need little time to do their harm; some give the rest its chance.
        let faulty_for = Duration::from_millis(match random.u8(..8) {
            0 => random.u64(22_000..45_000),
            _ => random.u64(7_000..20_000),
        });
        // The long ones show what goes wrong again, the short ones that it comes right at all.
        let calm_for = Duration::from_millis(match random.u8(..6) {
            0 => 16_000,
            _ => random.u64(2_000..6_000),
        });
        let clocks = match random.u8(..10) {
            0 => Clocks::BeyondBound,
            _ => Clocks::WithinBound,
        };
        let operations_min = faulty_for.as_secs() * 15 + 50;
        let mut setup = Self {
            replicas,
            nodes,
            callers: random.usize(3..=5),
            groups: random.usize(4..=24),
            timing,
            drift: DriftBound::default(),
            // (1 + r) / (1 - r) stays below 1 + rho.
            rate_ppm_max: if random.bool() { 4_970 } else { 200 },
            clocks,
            faulty_for,
            calm_for,
            operations_min,
            quality,
            sync: Duration::from_micros([100, 500, 2_000, 8_000][random.usize(..4)]),
            snapshot_entries: if random.bool() {
                random.u64(16..60)
            } else {
                random.u64(60..400)
            },
            snapshot_retain: if random.bool() { 0 } else { random.u64(0..200) },
            // Each piece waits for the one before: over far links small ones would take longer than the calm.
            chunk_bytes: match (random.bool(), far) {
                (true, false) => random.usize(256..1_024),
                (true, true) => random.usize(4_096..16_384),
                (false, _) => random.usize(4_096..65_536),
            },
            codec_every: random.u64(1..16),
            ttl_ms,
            tenures_max: None,
            think_max: Duration::from_millis(random.u64(120..200)),
            habits,
            plan: Vec::new(),
        };
        setup.plan = faults::plan(&mut random, &setup);
        setup
    }
}
