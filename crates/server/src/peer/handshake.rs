//! Who connects, and whether it belongs here. Both sides check the other before anything else is read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use quorate_codec::{Handshake, decode_handshake, encode_handshake};
use quorate_replica::Lane;
use quorate_storage::StorageError;
use quorate_types::{ClusterEpoch, ClusterId, FeatureLevel, ReplicaId};

use super::{LANES, lane_name};
use crate::boot::SharedDataDir;

/// The newest format of peer messages that this release speaks.
const FORMAT: u16 = 3;

/// Why a connection is refused. The text goes to the other side, too, so that both logs say it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RefusedPeer {
    #[error(
        "it belongs to cluster {theirs}, this member to {ours}: check initial_cluster and cluster_token, and which data directory it uses"
    )]
    ForeignCluster { theirs: ClusterId, ours: ClusterId },
    #[error(
        "it is of cluster epoch {theirs}, this member of {ours}: one of them was restored by disaster recovery"
    )]
    OtherEpoch {
        theirs: ClusterEpoch,
        ours: ClusterEpoch,
    },
    #[error(
        "it looks for member {meant}, this is {ours}: two members share an address, or addresses were swapped"
    )]
    WrongMember { meant: ReplicaId, ours: ReplicaId },
    #[error("it says that it is member {theirs}, expected {expected}")]
    Unexpected {
        theirs: ReplicaId,
        expected: ReplicaId,
    },
    #[error("member {theirs} is not of this cluster")]
    UnknownMember { theirs: ReplicaId },
    #[error(
        "member {peer} comes with disk {presented:016x}, it was known with {known:016x}: a member that lost its data directory must come back under a new id"
    )]
    DiskChanged {
        peer: ReplicaId,
        known: u64,
        presented: u64,
    },
    #[error("it supports feature levels {theirs:?}, this member {ours:?}: upgrade the older one")]
    Features {
        theirs: (FeatureLevel, FeatureLevel),
        ours: (FeatureLevel, FeatureLevel),
    },
    #[error("its handshake cannot be read: {why}")]
    Garbage { why: String },
}

impl RefusedPeer {
    /// Its label in metrics.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::ForeignCluster { .. } => "foreign_cluster",
            Self::OtherEpoch { .. } => "other_epoch",
            Self::WrongMember { .. } | Self::Unexpected { .. } => "wrong_member",
            Self::UnknownMember { .. } => "unknown_member",
            Self::DiskChanged { .. } => "disk_changed",
            Self::Features { .. } => "features",
            Self::Garbage { .. } => "garbage",
        }
    }
}

/// What this member says of itself, and what it knows of the others.
pub(crate) struct Introduction {
    pub(crate) cluster: ClusterId,
    pub(crate) epoch: ClusterEpoch,
    pub(crate) own: ReplicaId,
    pub(crate) disk_id: u64,
    pub(crate) features: (FeatureLevel, FeatureLevel),
    pub(crate) members: BTreeSet<ReplicaId>,
    /// Keeps the disk each peer was first seen with.
    pub(crate) data_dir: SharedDataDir,
    /// What of that was seen since the start, so that the file is read and written once per peer.
    pub(crate) disks: Mutex<BTreeMap<ReplicaId, u64>>,
}

impl Introduction {
    fn to(&self, peer: ReplicaId) -> Handshake {
        Handshake {
            cluster: self.cluster,
            epoch: self.epoch,
            from: self.own,
            to: peer,
            disk_id: self.disk_id,
            format: FORMAT,
            features: self.features,
        }
    }

    /// The dialler's first frame: a lane, and who it is.
    pub(super) fn request(&self, peer: ReplicaId, lane: Lane) -> Vec<u8> {
        let place = LANES
            .iter()
            .position(|l| *l == lane)
            .expect("all lanes are listed");
        let mut frame = vec![u8::try_from(place).expect("three lanes")];
        frame.extend(encode_handshake(&self.to(peer)));
        frame
    }

    /// Reads and checks the dialler's first frame.
    pub(super) async fn on_request(
        self: &Arc<Self>,
        frame: &[u8],
    ) -> Result<(ReplicaId, Lane), RefusedPeer> {
        let garbage = |why: &str| RefusedPeer::Garbage {
            why: why.to_owned(),
        };
        let (place, body) = frame.split_first().ok_or_else(|| garbage("it is empty"))?;
        let lane = *LANES
            .get(usize::from(*place))
            .ok_or_else(|| garbage("no such lane"))?;
        let theirs = decode_handshake(body).map_err(|error| RefusedPeer::Garbage {
            why: error.to_string(),
        })?;
        self.check(&theirs).await?;
        tracing::debug!(
            peer = theirs.from.0,
            lane = lane_name(lane),
            "accepted a peer"
        );
        Ok((theirs.from, lane))
    }

    /// The answer to a dialler that is welcome.
    pub(super) fn welcome(&self, peer: ReplicaId) -> Vec<u8> {
        let mut frame = vec![0];
        frame.extend(encode_handshake(&self.to(peer)));
        frame
    }

    /// The answer to one that is not.
    pub(super) fn refusal(refused: &RefusedPeer) -> Vec<u8> {
        let mut frame = vec![1];
        frame.extend(refused.to_string().as_bytes().iter().take(512));
        frame
    }

    /// Reads the acceptor's answer: `Ok(Err)` where it refused, with its words.
    pub(super) async fn on_answer(
        self: &Arc<Self>,
        frame: &[u8],
        peer: ReplicaId,
    ) -> Result<Result<(), String>, RefusedPeer> {
        match frame.split_first() {
            Some((0, body)) => {
                let theirs = decode_handshake(body).map_err(|error| RefusedPeer::Garbage {
                    why: error.to_string(),
                })?;
                if theirs.from != peer {
                    return Err(RefusedPeer::Unexpected {
                        theirs: theirs.from,
                        expected: peer,
                    });
                }
                self.check(&theirs).await.map(Ok)
            }
            Some((1, text)) => Ok(Err(String::from_utf8_lossy(text).escape_debug().collect())),
            _ => Err(RefusedPeer::Garbage {
                why: "the answer has no known kind".to_owned(),
            }),
        }
    }

    async fn check(self: &Arc<Self>, theirs: &Handshake) -> Result<(), RefusedPeer> {
        if theirs.cluster != self.cluster {
            return Err(RefusedPeer::ForeignCluster {
                theirs: theirs.cluster,
                ours: self.cluster,
            });
        }
        if theirs.epoch != self.epoch {
            return Err(RefusedPeer::OtherEpoch {
                theirs: theirs.epoch,
                ours: self.epoch,
            });
        }
        if theirs.to != self.own {
            return Err(RefusedPeer::WrongMember {
                meant: theirs.to,
                ours: self.own,
            });
        }
        if theirs.from == self.own || !self.members.contains(&theirs.from) {
            return Err(RefusedPeer::UnknownMember {
                theirs: theirs.from,
            });
        }
        // Ranges that do not meet: no feature level could be applied by both.
        if theirs.features.1 < self.features.0 || theirs.features.0 > self.features.1 {
            return Err(RefusedPeer::Features {
                theirs: theirs.features,
                ours: self.features,
            });
        }
        self.check_disk(theirs.from, theirs.disk_id).await
    }

    /// A member that comes with another disk may have forgotten its votes (protocol, section 7).
    async fn check_disk(
        self: &Arc<Self>,
        peer: ReplicaId,
        presented: u64,
    ) -> Result<(), RefusedPeer> {
        let known = self
            .disks
            .lock()
            .expect("no holder of this lock panics")
            .get(&peer)
            .copied();
        match known {
            Some(known) if known == presented => return Ok(()),
            Some(known) => {
                return Err(RefusedPeer::DiskChanged {
                    peer,
                    known,
                    presented,
                });
            }
            None => {}
        }
        let introduction = Arc::clone(self);
        let remembered = tokio::task::spawn_blocking(move || {
            introduction.data_dir.remember_peer(peer, presented)
        })
        .await;
        match remembered {
            Ok(Ok(())) => {
                self.disks
                    .lock()
                    .expect("no holder of this lock panics")
                    .insert(peer, presented);
                Ok(())
            }
            Ok(Err(StorageError::PeerChanged {
                peer,
                known,
                presented,
            })) => Err(RefusedPeer::DiskChanged {
                peer,
                known,
                presented,
            }),
            Ok(Err(error)) => Err(RefusedPeer::Garbage {
                why: format!("its disk could not be remembered here: {error}"),
            }),
            Err(_) => Err(RefusedPeer::Garbage {
                why: "this member is stopping".to_owned(),
            }),
        }
    }
}
