//! Numbers (Linux), printed: `cargo test -p quorate-coord kv::tests::timing -- --ignored --nocapture`.

use std::hint::black_box;
use std::time::Duration;

use super::*;

/// The processor time that this thread has had: a crowded machine does not lengthen it.
fn spent() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

fn timed<T>(what: &str, count: u64, work: impl FnOnce() -> T) -> T {
    let began = spent();
    let made = work();
    let spent = spent() - began;
    let each = spent.as_nanos() / u128::from(count.max(1));
    println!("{what:<60} {count:>9} in {spent:>10.1?}, {each:>9} ns each");
    made
}

fn set(store: &mut KvStore, key: u64) {
    let op = put(
        &format!("key-{key:012}"),
        "a value of some thirty-two bytes",
    );
    store.execute(&op, &|_| true).unwrap();
}

#[test]
#[ignore = "prints numbers"]
fn costs_of_a_million_keys() {
    const KEYS: u64 = 1_000_000;
    let mut lcg = Lcg(1);
    let mut store = KvStore::new();
    timed("put a new key, in order", KEYS, || {
        for key in 0..KEYS {
            set(&mut store, key);
        }
    });
    println!("{} bytes, {} keys", store.size_bytes(), store.key_count());
    timed("put over a random key", 200_000, || {
        for _ in 0..200_000 {
            set(&mut store, lcg.below(KEYS));
        }
    });
    timed(
        "put over a random key, a version published every 100",
        200_000,
        || {
            for at in 0..200_000 {
                if at % 100 == 0 {
                    black_box(store.clone());
                }
                set(&mut store, lcg.below(KEYS));
            }
        },
    );
    let mut held = store.clone();
    timed(
        "the same, each version held until the next",
        200_000,
        || {
            for at in 0..200_000 {
                if at % 100 == 0 {
                    held = store.clone();
                }
                set(&mut store, lcg.below(KEYS));
            }
        },
    );
    drop(held);
    let many = read("key-000000200000", "key-000000300000");
    let reply = timed("read of a range of 100,000 keys", 1, || store.range(&many));
    assert_eq!(reply.unwrap().kvs.len(), 100_000);
    let old = Range {
        revision: KEYS as i64 + 1,
        ..many.clone()
    };
    let reply = timed(
        "the same, at the revision before the overwriting",
        1,
        || store.range(&old),
    );
    assert_eq!(reply.unwrap().kvs.len(), 100_000);
    let all = Range {
        count_only: true,
        ..read("\0", "\0")
    };
    let reply = timed("count of all", 1, || store.range(&all));
    assert_eq!(reply.unwrap().count, KEYS);
    timed("hash", KEYS, || store.hash(0));
    let bytes = timed("stored", KEYS, || postcard::to_allocvec(&store).unwrap());
    let loaded: KvStore = timed("loaded", KEYS, || postcard::from_bytes(&bytes).unwrap());
    assert_eq!(loaded.hash(0), store.hash(0));
    let left = store.revision();
    store.compact(left as i64).unwrap();
    timed("sweep", left, || while store.sweep(1_000) {});
    println!(
        "{} bytes, {} in the log",
        store.size_bytes(),
        store.changes(0).count()
    );
}

#[test]
#[ignore = "prints numbers"]
fn costs_of_a_hot_key() {
    let mut store = KvStore::new();
    timed("the first versions of one key", 1_000, || {
        for _ in 0..1_000 {
            set(&mut store, 7);
        }
    });
    timed("the next versions of one key", 100_000, || {
        for _ in 0..100_000 {
            set(&mut store, 7);
        }
    });
    timed("later versions of one key", 1_000, || {
        for _ in 0..1_000 {
            set(&mut store, 7);
        }
    });
    let old = Range {
        revision: 50_000,
        ..read("key", "l")
    };
    let reply = timed("read of it at an old revision", 1, || store.range(&old));
    assert_eq!(reply.unwrap().kvs[0].version, 49_999);
}
