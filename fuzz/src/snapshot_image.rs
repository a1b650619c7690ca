//! Snapshots' content: a state that decodes is sound, survives a round, and can be worked with.

use quorate_codec::{decode_snapshot, encode_snapshot};

/// Decodes, looks at everything in it, and encodes again.
pub fn run(data: &[u8]) {
    let Ok((meta, state)) = decode_snapshot(data) else {
        return;
    };
    state.check_invariants();
    let encoded = encode_snapshot(&meta, &state);
    let (meta_again, again) = decode_snapshot(&encoded).expect("what we encode decodes");
    assert_eq!(meta_again, meta, "the meta changed on its way");
    assert_eq!(
        again.digest(),
        state.digest(),
        "the state changed on its way"
    );
    assert_eq!(
        encode_snapshot(&meta_again, &again),
        encoded,
        "two encodings of one state differ"
    );
    for group in state.groups() {
        let _ = state.explain(&group.key.name);
    }
    for session in state.sessions() {
        let _ = state.standing(session.key.id);
    }
    crate::coord_apply::go_on(state);
}
