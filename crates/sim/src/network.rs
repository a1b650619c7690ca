//! The network between servers, and between servers and their clients: delay, loss, duplication, reordering, cuts.
//!
//! Owns: who can reach whom, and when a message arrives. Deliberately absent: what the messages say.

use std::time::Duration;

use quorate_replica::Lane;

use crate::clock::Moment;

const MILLION: u32 = 1_000_000;

/// How good the network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quality {
    /// The least delay of a message.
    pub delay_min: Duration,
    /// The mean of what is added to it.
    pub delay_mean: Duration,
    /// Messages lost, of a million.
    pub loss_ppm: u32,
    /// Messages duplicated, of a million.
    pub duplicate_ppm: u32,
    /// Messages that are not kept in the order of their lane, of a million.
    pub reorder_ppm: u32,
}

impl Quality {
    /// A healthy network of the same distances.
    #[must_use]
    pub fn healthy(self) -> Self {
        Self {
            loss_ppm: 0,
            duplicate_ppm: 0,
            reorder_ppm: 0,
            ..self
        }
    }
}

/// The network.
///
/// # Invariants
/// - Messages of one lane of one connection arrive in order, unless reordering struck.
/// - Nothing arrives over a connection that was broken after it was sent.
#[derive(Debug)]
pub struct Network {
    servers: usize,
    random: fastrand::Rng,
    /// As set up.
    pub base: Quality,
    /// As it is now.
    pub quality: Quality,
    /// How many faults cut `from -> to`.
    cuts: Vec<u8>,
    /// Which connection a pair of servers has; symmetric.
    generation: Vec<u32>,
    connected: Vec<bool>,
    lane_last: Vec<[Moment; 3]>,
    /// How many faults cut a node from a server.
    node_cuts: Vec<u8>,
    /// Messages lost.
    pub lost: u64,
    /// Messages duplicated.
    pub duplicated: u64,
    /// Messages reordered.
    pub reordered: u64,
    /// Messages dropped by cuts and broken connections.
    pub cut_off: u64,
}

impl Network {
    /// A network of so many servers and nodes.
    #[must_use]
    pub fn new(servers: usize, nodes: usize, quality: Quality, seed: u64) -> Self {
        Self {
            servers,
            random: fastrand::Rng::with_seed(seed),
            base: quality,
            quality,
            cuts: vec![0; servers * servers],
            generation: vec![0; servers * servers],
            connected: vec![false; servers * servers],
            lane_last: vec![[Moment::default(); 3]; servers * servers],
            node_cuts: vec![0; servers * nodes],
            lost: 0,
            duplicated: 0,
            reordered: 0,
            cut_off: 0,
        }
    }

    fn at(&self, from: usize, to: usize) -> usize {
        from * self.servers + to
    }

    fn chance(&mut self, ppm: u32) -> bool {
        ppm > 0 && self.random.u32(0..MILLION) < ppm
    }

    /// One way's delay now.
    pub fn delay(&mut self) -> Duration {
        let Quality {
            delay_min,
            delay_mean,
            ..
        } = self.quality;
        // The sum of two uniform parts, and now and then a long tail, as in real networks.
        let mean = u64::try_from(delay_mean.as_nanos())
            .expect("a short delay")
            .max(1);
        let mut extra = (self.random.u64(0..=mean) + self.random.u64(0..=mean)).max(1);
        if self.random.u8(..) == 0 {
            extra *= self.random.u64(2..10);
        }
        delay_min + Duration::from_nanos(extra)
    }

    /// When a message between servers arrives: never, once or twice.
    pub fn send(&mut self, now: Moment, from: usize, to: usize, lane: Lane) -> [Option<Moment>; 2] {
        let at = self.at(from, to);
        if !self.connected[at] || self.cuts[at] > 0 {
            self.cut_off += 1;
            return [None, None];
        }
        if self.chance(self.quality.loss_ppm) {
            self.lost += 1;
            return [None, None];
        }
        let mut arrival = now + self.delay();
        if self.chance(self.quality.reorder_ppm) {
            self.reordered += 1;
            arrival = arrival + self.delay() * 3;
        } else {
            let last = &mut self.lane_last[at][lane as usize];
            arrival = arrival.max(*last + Duration::from_nanos(1));
            *last = arrival;
        }
        let again = self.chance(self.quality.duplicate_ppm).then(|| {
            self.duplicated += 1;
            arrival + self.delay()
        });
        [Some(arrival), again]
    }

    /// Which connection two servers have.
    #[must_use]
    pub fn generation(&self, from: usize, to: usize) -> u32 {
        self.generation[self.at(from, to)]
    }

    /// Whether two servers are connected.
    #[must_use]
    pub fn is_connected(&self, from: usize, to: usize) -> bool {
        self.connected[self.at(from, to)]
    }

    /// Whether a connection could be made.
    #[must_use]
    pub fn is_reachable(&self, a: usize, b: usize) -> bool {
        self.cuts[self.at(a, b)] == 0 && self.cuts[self.at(b, a)] == 0
    }

    /// Makes a connection.
    pub fn connect(&mut self, a: usize, b: usize) {
        for at in [self.at(a, b), self.at(b, a)] {
            self.connected[at] = true;
            self.lane_last[at] = [Moment::default(); 3];
        }
    }

    /// Breaks a connection: what is on its way is lost.
    pub fn disconnect(&mut self, a: usize, b: usize) {
        for at in [self.at(a, b), self.at(b, a)] {
            self.connected[at] = false;
            self.generation[at] += 1;
        }
    }

    /// Cuts one direction.
    pub fn cut(&mut self, from: usize, to: usize) {
        let at = self.at(from, to);
        self.cuts[at] = self.cuts[at].saturating_add(1);
    }

    /// Lifts one cut of one direction.
    pub fn mend(&mut self, from: usize, to: usize) {
        let at = self.at(from, to);
        self.cuts[at] = self.cuts[at].saturating_sub(1);
    }

    /// Cuts a node from a server.
    pub fn cut_node(&mut self, node: usize, server: usize) {
        let at = node * self.servers + server;
        self.node_cuts[at] = self.node_cuts[at].saturating_add(1);
    }

    /// Lifts one cut of a node from a server.
    pub fn mend_node(&mut self, node: usize, server: usize) {
        let at = node * self.servers + server;
        self.node_cuts[at] = self.node_cuts[at].saturating_sub(1);
    }

    /// Whether a node is cut from a server.
    #[must_use]
    pub fn is_node_cut(&self, node: usize, server: usize) -> bool {
        self.node_cuts[node * self.servers + server] > 0
    }

    /// Whether a client's message is lost.
    pub fn loses(&mut self) -> bool {
        let lost = self.chance(self.quality.loss_ppm);
        self.lost += u64::from(lost);
        lost
    }

    /// Whether all servers can reach each other, and the network is as set up.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.cuts.iter().all(|cuts| *cuts == 0) && self.quality == self.base
    }

    /// When a message arrives that is sent again until it does, over a connection that there is.
    pub fn send_surely(&mut self, now: Moment, from: usize, to: usize) -> Option<Moment> {
        let at = self.at(from, to);
        (self.connected[at] && self.cuts[at] == 0).then(|| now + self.delay())
    }

    /// Lifts all cuts and faults.
    pub fn heal(&mut self) {
        self.cuts.fill(0);
        self.node_cuts.fill(0);
        self.quality = self.base.healthy();
    }
}
