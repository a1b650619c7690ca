//! Every shape in which servers lose sight of each other: whole sides, single servers, and the partial partitions of Omni-Paxos
//! (Ng, Haridi, Carbone, EuroSys 2023, section 2), each also one way only.

/// A shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One server is off.
    OneOff,
    /// Two sides.
    Halves,
    /// One server hears nobody.
    Deaf,
    /// Nobody hears one server.
    Mute,
    /// One pair cannot talk.
    OnePair,
    /// All talk to one follower only: the leader has lost its quorum, and is still heard (quorum loss).
    QuorumLoss,
    /// The leader is off, and the others talk to one server only (constrained election).
    Constrained,
    /// Each talks to its neighbours in a chain only, the leader at its end (chained).
    Chained,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::OneOff,
        Self::Halves,
        Self::Deaf,
        Self::Mute,
        Self::OnePair,
        Self::QuorumLoss,
        Self::Constrained,
        Self::Chained,
    ];

    /// Its name, for the count.
    #[must_use]
    pub fn kind(self, one_way: bool) -> &'static str {
        match (self, one_way) {
            (Self::OneOff, false) => "partition: one server off",
            (Self::OneOff, true) => "partition: one server off, one way",
            (Self::Halves, false) => "partition: halves",
            (Self::Halves, true) => "partition: halves, one way",
            (Self::Deaf, _) => "partition: deaf",
            (Self::Mute, _) => "partition: mute",
            (Self::OnePair, false) => "partition: one pair",
            (Self::OnePair, true) => "partition: one pair, one way",
            (Self::QuorumLoss, false) => "partition: quorum loss",
            (Self::QuorumLoss, true) => "partition: quorum loss, one way",
            (Self::Constrained, false) => "partition: constrained election",
            (Self::Constrained, true) => "partition: constrained election, one way",
            (Self::Chained, false) => "partition: chained",
            (Self::Chained, true) => "partition: chained, one way",
        }
    }

    /// Which directions it cuts among so many servers.
    #[must_use]
    pub fn cuts(
        self,
        servers: usize,
        server: usize,
        leader: Option<usize>,
        one_way: bool,
        random: &mut fastrand::Rng,
    ) -> Vec<(usize, usize)> {
        let leader = leader.unwrap_or(random.usize(..servers));
        // Any other than the leader.
        let hub = if server == leader {
            (server + 1) % servers
        } else {
            server
        };
        let side: Vec<bool> = (0..servers).map(|_| random.bool()).collect();
        let other = (server + 1 + random.usize(..servers.max(2) - 1)) % servers;
        let mut chain: Vec<usize> = (0..servers).collect();
        random.shuffle(&mut chain);
        chain.retain(|at| *at != leader);
        chain.insert(0, leader);
        let mut place = vec![0; servers];
        for (at, server) in chain.iter().enumerate() {
            place[*server] = at;
        }
        let is_cut = |a: usize, b: usize| match self {
            Self::OneOff | Self::Deaf | Self::Mute => a == server || b == server,
            Self::Halves => side[a] != side[b],
            Self::OnePair => (a, b) == (server, other) || (b, a) == (server, other),
            Self::QuorumLoss => a != hub && b != hub,
            Self::Constrained => a == leader || b == leader || (a != hub && b != hub),
            Self::Chained => place[a].abs_diff(place[b]) > 1,
        };
        let mut cuts = Vec::new();
        for a in 0..servers {
            for b in a + 1..servers {
                if !is_cut(a, b) {
                    continue;
                }
                let (to_a, to_b) = match self {
                    Self::Deaf => (a == server, b == server),
                    Self::Mute => (b == server, a == server),
                    _ if one_way => {
                        let first = random.bool();
                        (first, !first)
                    }
                    _ => (true, true),
                };
                if to_b {
                    cuts.push((a, b));
                }
                if to_a {
                    cuts.push((b, a));
                }
            }
        }
        cuts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_partial_partitions_leave_the_links_that_the_paper_says() {
        let links = |shape: Shape, server| {
            let random = &mut fastrand::Rng::with_seed(1);
            let cuts = shape.cuts(5, server, Some(0), false, random);
            let linked = |a, b| a != b && !cuts.contains(&(a, b));
            (0..5)
                .map(|a| (0..5).filter(|b| linked(a, *b)).count())
                .collect::<Vec<_>>()
        };
        // The hub reaches all, everybody else the hub.
        assert_eq!(links(Shape::QuorumLoss, 2), [1, 1, 4, 1, 1]);
        // A leader is no hub: the next server is.
        assert_eq!(links(Shape::QuorumLoss, 0), [1, 4, 1, 1, 1]);
        assert_eq!(links(Shape::Constrained, 2), [0, 1, 3, 1, 1]);
        let mut chained = links(Shape::Chained, 2);
        assert_eq!(chained[0], 1, "the leader is at the end");
        chained.sort_unstable();
        assert_eq!(chained, [1, 1, 2, 2, 2]);
    }

    #[test]
    fn one_way_cuts_one_direction_of_each_pair() {
        for shape in Shape::ALL {
            let cuts = |one_way| {
                shape
                    .cuts(5, 1, Some(0), one_way, &mut fastrand::Rng::with_seed(3))
                    .len()
            };
            let ways = if matches!(shape, Shape::Deaf | Shape::Mute) {
                1
            } else {
                2
            };
            assert_eq!(cuts(false), cuts(true) * ways, "{shape:?}");
        }
        assert!(
            Shape::OneOff
                .cuts(1, 0, Some(0), false, &mut fastrand::Rng::with_seed(3))
                .is_empty()
        );
    }
}
