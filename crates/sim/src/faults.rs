//! What goes wrong. A plan is drawn from the seed before the run (`plan.rs`), carried out while it lasts (`strike.rs`), and lifted
//! as a whole when the calm begins. A fault is counted where it truly struck, not where it was planned.

use std::time::Duration;

mod old_disk;
mod partition;
mod plan;
mod strike;

pub use partition::Shape;
pub use plan::plan;

pub(crate) use old_disk::OldDisk;
pub(crate) use strike::Rotten;

/// Where a server dies, seen from its log: before, within (a fault of its own) and after a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashPoint {
    /// Between any two orders of its replica.
    Order,
    /// A write was ordered and did not reach the disk.
    BeforeWrite,
    /// The write was handed to the disk; its sync is under way.
    DuringSync,
    /// The sync is done on the disk; neither peers nor the replica know.
    AfterSync,
    /// Peers were sent what waited for the sync; the replica does not know.
    AfterPromises,
}

impl CrashPoint {
    /// Its name, for the count.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::Order => "crash between orders",
            Self::BeforeWrite => "crash before a write",
            Self::DuringSync => "crash before its sync ended",
            Self::AfterSync => "crash after a sync, before its promises left",
            Self::AfterPromises => "crash after a sync, before it was reported",
        }
    }
}

/// How a snapshot's transfer is cut while pieces are still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotCut {
    /// The connection breaks.
    Connection,
    /// The sender's process dies.
    Sender,
    /// The receiver loses power.
    Receiver,
}

/// Whose clock a fault is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// A server's.
    Server(usize),
    /// A node's.
    Node(usize),
}

/// One thing that goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A server's process dies, with its machine or alone.
    Crash {
        /// Which.
        server: usize,
        /// The machine loses power: unsynced writes may be lost or torn.
        power: bool,
        /// For how long.
        down: Duration,
    },
    /// A server dies after carrying out so many more orders of its replica.
    CrashAtOutput {
        /// Which.
        server: usize,
        /// How many.
        outputs: u32,
        /// With its machine.
        power: bool,
    },
    /// A server dies at a point of its writing.
    CrashAt {
        /// Which.
        server: usize,
        /// Where.
        point: CrashPoint,
        /// After passing there so many times.
        passes: u32,
        /// With its machine.
        power: bool,
    },
    /// A server's power is cut within a write: after so many more operations of its disk.
    PowerCutInWrite {
        /// Which.
        server: usize,
        /// How many.
        operations: u64,
    },
    /// All servers lose power at once.
    PowerLoss {
        /// For how long.
        down: Duration,
    },
    /// A server's next sync fails.
    FailedSync {
        /// Which.
        server: usize,
    },
    /// A server's disk is full.
    FullDisk {
        /// Which.
        server: usize,
        /// For how long.
        lasts: Duration,
    },
    /// A server's syncs are slow.
    SlowDisk {
        /// Which.
        server: usize,
        /// By how much.
        latency: Duration,
        /// For how long.
        lasts: Duration,
    },
    /// A server's next write lands somewhere else.
    MisdirectedWrite {
        /// Which.
        server: usize,
    },
    /// A byte of a server's log rots, on a copy of its disk: opening the copy must refuse, or find everything.
    Rot {
        /// Which.
        server: usize,
    },
    /// A server stops, a byte of its disk rots, and it starts again: it must refuse, or have lost nothing. Where it refuses, the
    /// byte is put back.
    RotAtRest {
        /// Which.
        server: usize,
        /// How long it is stopped.
        down: Duration,
    },
    /// A server is started from a copy of its disk made a while ago.
    OldDisk {
        /// Which.
        server: usize,
        /// How old the copy gets.
        age: Duration,
        /// Only where its peers are there to tell it; a scenario may say that they are.
        sure: bool,
    },
    /// A server stands still; messages wait.
    PauseServer {
        /// Which.
        server: usize,
        /// For how long.
        lasts: Duration,
    },
    /// A node stands still.
    PauseNode {
        /// Which.
        node: usize,
        /// For how long.
        lasts: Duration,
    },
    /// A node dies and comes back.
    KillNode {
        /// Which.
        node: usize,
        /// For how long.
        down: Duration,
    },
    /// Directions between servers are cut.
    Partition {
        /// Its name, for the count.
        kind: &'static str,
        /// Which directions.
        cuts: Vec<(usize, usize)>,
        /// Whether the connections break, too.
        breaks: bool,
        /// For how long.
        lasts: Duration,
    },
    /// Servers are cut from each other in a shape, around the leader where there is one.
    Shaped {
        /// Which shape.
        shape: Shape,
        /// The server that it is about; in most shapes it avoids the leader.
        server: usize,
        /// Of each pair, only one direction is cut.
        one_way: bool,
        /// Decides the rest.
        seed: u64,
        /// Whether the connections break, too.
        breaks: bool,
        /// For how long.
        lasts: Duration,
    },
    /// A link between two servers comes and goes.
    Flap {
        /// One.
        a: usize,
        /// The other.
        b: usize,
        /// How often.
        times: u32,
        /// How long it is away, and then back.
        period: Duration,
        /// Only from `a` to `b`.
        one_way: bool,
    },
    /// A node is cut from servers.
    CutNode {
        /// Which.
        node: usize,
        /// From which.
        servers: Vec<usize>,
        /// For how long.
        lasts: Duration,
    },
    /// The network is bad.
    Storm {
        /// Lost messages, of a million.
        loss_ppm: u32,
        /// Duplicated ones.
        duplicate_ppm: u32,
        /// Reordered ones.
        reorder_ppm: u32,
        /// All take longer by this factor.
        slower: u32,
        /// For how long.
        lasts: Duration,
    },
    /// A connection between two servers breaks and is made again.
    Reset {
        /// One.
        a: usize,
        /// The other.
        b: usize,
    },
    /// All nodes' streams break at once.
    MassReconnect,
    /// A server's directives to nodes are late; its answers are not.
    LateDirectives {
        /// Which.
        server: usize,
        /// By how much at most.
        by: Duration,
        /// For how long.
        lasts: Duration,
    },
    /// Many reads at once.
    Burst {
        /// Where.
        server: usize,
        /// How many.
        calls: usize,
    },
    /// Many reads and writes at all servers at once, from clients that do not wait for each other.
    Overload {
        /// How many per server.
        calls: usize,
    },
    /// The leader is told to hand over, as on a graceful stop.
    HandOver,
    /// A server is away until it needs a snapshot, and the next transfer of one is cut midway.
    CutSnapshot {
        /// Which.
        server: usize,
        /// For how long it is away.
        down: Duration,
        /// How the transfer is cut.
        cut: SnapshotCut,
    },
    /// A holder stands still, and its group is forced away from it meanwhile.
    ForcePausedHolder {
        /// How long it stands still.
        lasts: Duration,
    },
    /// A fault of a server strikes the one that leads then, where one does.
    OnLeader(Box<Fault>),
    /// A clock jumps ahead, beyond what any rate allows.
    ClockJump {
        /// Whose.
        whose: Whose,
        /// How far.
        by: Duration,
    },
    /// A clock runs at another rate, far beyond the bound.
    ClockRate {
        /// Whose.
        whose: Whose,
        /// How much faster than true time.
        rate_ppm: i32,
    },
    /// A clock stands still, as `CLOCK_BOOTTIME` does while a hypervisor holds the machine.
    ClockFrozen {
        /// Whose.
        whose: Whose,
        /// Whether the process stands still, too.
        paused: bool,
        /// For how long.
        lasts: Duration,
    },
}

impl Fault {
    /// The node that it strikes, if it is one.
    #[must_use]
    pub fn node(&self) -> Option<usize> {
        match self {
            Self::PauseNode { node, .. }
            | Self::KillNode { node, .. }
            | Self::CutNode { node, .. }
            | Self::ClockJump {
                whose: Whose::Node(node),
                ..
            }
            | Self::ClockRate {
                whose: Whose::Node(node),
                ..
            }
            | Self::ClockFrozen {
                whose: Whose::Node(node),
                ..
            } => Some(*node),
            _ => None,
        }
    }

    /// The same fault of another server.
    fn on(mut self, leader: usize) -> Self {
        if let Self::Crash { server, .. }
        | Self::CrashAt { server, .. }
        | Self::CrashAtOutput { server, .. }
        | Self::PowerCutInWrite { server, .. }
        | Self::FailedSync { server }
        | Self::FullDisk { server, .. }
        | Self::SlowDisk { server, .. }
        | Self::PauseServer { server, .. }
        | Self::Shaped { server, .. } = &mut self
        {
            *server = leader;
        }
        self
    }
}
