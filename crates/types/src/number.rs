//! The numbered ids. Each is a distinct type around an integer; none converts into another.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($int:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $int);

        impl $name {
            /// The value before the first one.
            pub const ZERO: Self = Self(0);

            /// The value after this one.
            ///
            /// # Panics
            /// When the integer is exhausted, which no run of ours can reach.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.checked_add(1).expect("a 64-bit counter is never exhausted"))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

macro_rules! wide_id {
    ($(#[$doc:meta])* $name:ident($int:ty), $width:literal) => {
        $(#[$doc])*
        ///
        /// For people and JSON it is hexadecimal text: a number of this width is not exact there.
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $int);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!("{:0", $width, "x}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                if to.is_human_readable() { to.collect_str(self) } else { self.0.serialize(to) }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                if !from.is_human_readable() {
                    return <$int>::deserialize(from).map(Self);
                }
                let text = String::deserialize(from)?;
                <$int>::from_str_radix(&text, 16).map(Self).map_err(serde::de::Error::custom)
            }
        }
    };
}

number! {
    /// Number of a backbone election; at most one leader each (Raft thesis, section 3.3).
    Term(u64), "t"
}
number! {
    /// Position in the replicated log, own-term entries included; the first entry is 1.
    LogIndex(u64), "i"
}
number! {
    /// Version of the client-visible state: rises by one with every command that changed something.
    Revision(u64), "r"
}
number! {
    /// Sent with guarded writes; strictly rises with every tenure of a group, over recreations too.
    FencingToken(u64), "f"
}
number! {
    /// One holder's unbroken leadership of one group, counted from 1 in each group incarnation.
    TenureNumber(u64), "n"
}
number! {
    /// Position in the stream of directives that one session receives, counted from 1.
    DirectiveSeq(u64), "d"
}
number! {
    /// Version of the backbone's membership; the initial one is 1.
    ConfigEpoch(u64), "c"
}
number! {
    /// Raised by disaster recovery; carried in every peer message. The first is 0.
    ClusterEpoch(u64), "e"
}
number! {
    /// One server of the backbone, 1 or more.
    ReplicaId(u64), "s"
}
number! {
    /// One session. The state machine numbers them, save that a lease may choose; reused ids differ in the revision that opened them.
    SessionId(u64), "l"
}
number! {
    /// The behaviour that every replica applies entries by; raised by a replicated command only.
    FeatureLevel(u32), "v"
}
number! {
    /// Version of the contract between a service's node and the backbone.
    ContractVersion(u32), "k"
}

wide_id! {
    /// One cluster; derived from the first configuration, so that two bootstraps of different
    /// configurations never talk to each other.
    ClusterId(u64), "16"
}
wide_id! {
    /// Names one request of one caller, so that a retry has its effect once.
    RequestId(u128), "32"
}
wide_id! {
    /// Follows one request through logs and traces (W3C trace id). Zero: not traced.
    TraceId(u128), "32"
}
