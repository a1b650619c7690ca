//! The SDK against a server whose every answer the test gives.

use std::sync::atomic::AtomicBool;

use quorate_types::{DirectiveSeq, FencingToken, NodeName, Revision, SessionId, TenureNumber};
use quorate_wire::api::{
    ApiErrorKind, CONTRACT, Cause, Directive, DirectiveKind, NodeDown, NodeUp, Part, Position,
    Report, RequestDone, StandingTenure, TenureId,
};

use super::*;
use crate::fake::{Conn, Fake};
use crate::lease::LostCause;
use crate::{ClientOptions, Leadership};

const TTL_MS: u64 = 3_000;

fn key() -> SessionKey {
    SessionKey {
        id: SessionId(7),
        created: Revision(3),
    }
}

fn group(name: &str) -> GroupName {
    GroupName::new(name).unwrap()
}

fn tenure(number: u64) -> TenureId {
    TenureId {
        group: group("orders/1"),
        incarnation: Revision(2),
        number: TenureNumber(number),
    }
}

fn options() -> SessionOptions {
    let node = NodeSpec::new(NodeName::new("n1").unwrap());
    SessionOptions {
        ttl: Duration::from_millis(TTL_MS),
        ..SessionOptions::for_node(node)
    }
}

fn client(fakes: &[&Fake]) -> Client {
    let client = Client::lazy(
        fakes.iter().map(|fake| fake.address.clone()),
        ClientOptions::default(),
    )
    .unwrap();
    client.prefer(0);
    client
}

fn opened() -> NodeDown {
    let (session, contract, cluster) = (key(), CONTRACT, ClusterId(5));
    NodeDown::Opened {
        session,
        ttl_ms: TTL_MS,
        ttl_ms_min_safe: 1_000,
        contract,
        cluster,
    }
}

fn standing(directive_seq: u64, tenures: Vec<StandingTenure>) -> NodeDown {
    NodeDown::Standing {
        directive_seq: DirectiveSeq(directive_seq),
        tenures,
    }
}

fn directive(seq: u64, number: u64, kind: DirectiveKind) -> NodeDown {
    NodeDown::Directive(Directive {
        seq: DirectiveSeq(seq),
        tenure: tenure(number),
        kind,
    })
}

fn activate() -> DirectiveKind {
    DirectiveKind::Activate {
        token: FencingToken(9),
        predecessor: None,
    }
}

fn done(request_seq: u64) -> NodeDown {
    NodeDown::RequestDone {
        request_seq,
        outcome: Ok(RequestDone {
            revision: Revision(4),
            refused: vec![],
        }),
    }
}

impl Conn {
    /// Opens the session here.
    async fn open(&mut self) -> quorate_types::RequestId {
        let Some(NodeUp::Open { request_id, .. }) = self.next().await else {
            panic!("not opened")
        };
        self.send(opened()).await;
        self.send(standing(0, vec![])).await;
        request_id
    }

    /// Answers the next keep-alive; returns its number.
    async fn keep_alive(&mut self, directive_seq: u64) -> u64 {
        loop {
            match self.next().await {
                Some(NodeUp::KeepAlive { seq, .. }) => {
                    let directive_seq = DirectiveSeq(directive_seq);
                    self.send(NodeDown::KeptAlive {
                        seq,
                        ttl_ms: TTL_MS,
                        directive_seq,
                    })
                    .await;
                    return seq;
                }
                Some(_) => {}
                None => panic!("the stream ended"),
            }
        }
    }

    /// The next message that is no keep-alive.
    async fn request(&mut self) -> NodeUp {
        loop {
            match self.next().await {
                Some(NodeUp::KeepAlive { .. }) => {}
                Some(up) => return up,
                None => panic!("the stream ended"),
            }
        }
    }
}

/// A session that leads tenure 1 on one server.
async fn leading(fake: &mut Fake, client: &Client) -> (Session, SessionEvents, Conn, Leadership) {
    let opening = tokio::spawn({
        let client = client.clone();
        async move { client.open_session(options()).await }
    });
    let mut conn = fake.node().await;
    conn.open().await;
    let (session, mut events) = opening.await.unwrap().unwrap();
    conn.send(directive(1, 1, activate())).await;
    conn.keep_alive(1).await;
    let Some(SessionEvent::Active { leadership, .. }) = events.next().await else {
        panic!("not active")
    };
    (session, events, conn, leadership)
}

#[tokio::test]
async fn a_holder_leads_from_its_activation_to_its_release() {
    let mut fake = Fake::start().await;
    let client = client(&[&fake]);
    let (session, mut events, mut conn, leadership) = leading(&mut fake, &client).await;
    assert!(leadership.check());
    assert_eq!(leadership.guard().unwrap(), FencingToken(9));
    assert!(leadership.valid_until() <= Some(crate::boot_time() + Duration::from_millis(TTL_MS)));
    assert_eq!(session.key(), key());

    let released = leadership.release(Some(Position(44)));
    assert!(
        !leadership.check(),
        "belief ends before the report is even sent"
    );
    assert_eq!(leadership.valid_until(), None);
    let NodeUp::Report {
        request_seq: 1,
        reports,
    } = conn.request().await
    else {
        panic!("no report")
    };
    assert_eq!(
        reports,
        vec![(
            tenure(1),
            Report::Released {
                position: Some(Position(44))
            }
        )]
    );
    conn.send(directive(
        2,
        1,
        DirectiveKind::Ended {
            cause: Cause::Released,
        },
    ))
    .await;
    conn.send(done(1)).await;
    released.await.unwrap();
    let Some(SessionEvent::Lost { cause, .. }) = events.next().await else {
        panic!("not lost")
    };
    assert_eq!(cause, LostCause::Ended(Cause::Released));
}

#[tokio::test]
async fn a_broken_stream_is_resumed_at_the_next_server_under_the_same_tenure() {
    let (mut first, mut second) = (Fake::start().await, Fake::start().await);
    let client = client(&[&first, &second]);
    let (session, mut events, mut conn, leadership) = leading(&mut first, &client).await;
    let asked = tokio::spawn({
        let session = session.clone();
        async move {
            session
                .contend([(group("a"), ContenderSpec::default())])
                .await
        }
    });
    let contend = conn.request().await;
    drop(conn);
    drop(first);

    let mut conn = second.node().await;
    let Some(NodeUp::Resume {
        session, processed, ..
    }) = conn.next().await
    else {
        panic!("not resumed")
    };
    assert_eq!((session, processed), (key(), DirectiveSeq(1)));
    conn.send(opened()).await;
    let held = StandingTenure {
        tenure: tenure(1),
        part: Part::Active,
        token: FencingToken(9),
        predecessor: None,
        deadline_ms: None,
        successor: None,
    };
    conn.send(standing(1, vec![held])).await;
    assert_eq!(
        conn.request().await,
        contend,
        "the undecided request is sent again unchanged"
    );
    conn.send(done(1)).await;
    assert!(asked.await.unwrap().unwrap().refused().is_empty());
    assert!(conn.keep_alive(1).await > 1, "keep-alives are numbered on");
    assert!(leadership.check());
    conn.send(directive(2, 1, DirectiveKind::Revoke)).await;
    // Nothing was told of the reconnect: it concerned nobody.
    let Some(SessionEvent::Revoked { leadership }) = events.next().await else {
        panic!("not revoked")
    };
    assert!(!leadership.check());
}

#[tokio::test]
async fn a_missing_directive_makes_it_ask_for_the_full_picture() {
    let mut fake = Fake::start().await;
    let client = client(&[&fake]);
    let (_session, mut events, mut conn, leadership) = leading(&mut fake, &client).await;
    conn.send(directive(3, 2, activate())).await;
    let mut again = fake.node().await;
    let Some(NodeUp::Resume { processed, .. }) = again.next().await else {
        panic!("not resumed")
    };
    assert_eq!(processed, DirectiveSeq(1));
    again.send(opened()).await;
    again.send(standing(3, vec![])).await;
    let Some(SessionEvent::Lost {
        cause: LostCause::Superseded,
        ..
    }) = events.next().await
    else {
        panic!("not lost")
    };
    assert!(!leadership.check());
}

#[tokio::test]
async fn a_session_that_is_gone_loses_everything_and_says_so() {
    let mut fake = Fake::start().await;
    let client = client(&[&fake]);
    let (session, mut events, mut conn, leadership) = leading(&mut fake, &client).await;
    conn.send(NodeDown::SessionGone).await;
    let Some(SessionEvent::Lost { .. }) = events.next().await else {
        panic!("not lost")
    };
    let Some(SessionEvent::SessionLost { cause }) = events.next().await else {
        panic!("session not lost")
    };
    assert_eq!(cause, LostCause::SessionGone);
    assert!(events.next().await.is_none());
    assert!(!leadership.check() && session.is_over());
    let error = session
        .contend([(group("a"), ContenderSpec::default())])
        .await
        .unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::SessionLost);
    leadership
        .release(None)
        .await
        .expect("what is over needs no release");
}

#[tokio::test]
async fn an_unhealthy_owner_is_not_kept_alive() {
    let mut fake = Fake::start().await;
    let client = client(&[&fake]);
    let healthy = Arc::new(AtomicBool::new(true));
    let health = {
        let healthy = healthy.clone();
        Arc::new(move || healthy.load(Ordering::SeqCst))
    };
    let opening = tokio::spawn(async move {
        let options = SessionOptions {
            health,
            ttl: Duration::from_millis(TTL_MS),
            ..options()
        };
        client.open_session(options).await
    });
    let mut conn = fake.node().await;
    conn.open().await;
    let (_session, mut events) = opening.await.unwrap().unwrap();
    conn.send(directive(1, 1, activate())).await;
    healthy.store(false, Ordering::SeqCst);
    // Whatever was on its way before the change is answered; then nothing comes, and belief runs out by itself.
    let quiet = tokio::spawn(async move {
        let mut answered = 0;
        while let Ok(Some(up)) =
            tokio::time::timeout(Duration::from_millis(TTL_MS), conn.next()).await
        {
            let NodeUp::KeepAlive { seq, healthy, .. } = up else {
                panic!("{up:?}")
            };
            assert!(healthy);
            answered += 1;
            let directive_seq = DirectiveSeq(1);
            conn.send(NodeDown::KeptAlive {
                seq,
                ttl_ms: 500,
                directive_seq,
            })
            .await;
        }
        answered
    });
    let Some(SessionEvent::Active { leadership, .. }) = events.next().await else {
        panic!("not active")
    };
    let Some(SessionEvent::Unconfirmed { .. }) = events.next().await else {
        panic!("still confirmed")
    };
    assert!(!leadership.check());
    assert!(quiet.await.unwrap() <= 2);
}

#[tokio::test]
async fn an_unknown_request_is_asked_again_under_its_number() {
    let mut fake = Fake::start().await;
    let client = client(&[&fake]);
    let (session, _events, mut conn, _) = leading(&mut fake, &client).await;
    let names = [group("a"), group("b")];
    let asked = tokio::spawn(async move {
        session
            .contend(names.map(|name| (name, ContenderSpec::default())))
            .await
            .map(|c| (c, session))
    });
    let first = conn.request().await;
    assert!(matches!(first, NodeUp::Contend { request_seq: 1, .. }));
    conn.send(NodeDown::RequestUnknown { request_seq: 1 }).await;
    assert_eq!(conn.request().await, first);
    let error = ApiError::new(ApiErrorKind::Overloaded, "full").retry_after_ms(10);
    conn.send(NodeDown::Refused {
        request_seq: Some(1),
        error,
    })
    .await;
    assert_eq!(conn.request().await, first);
    let refused = vec![(
        1,
        ApiError::new(ApiErrorKind::UnknownGroup, "no such group"),
    )];
    let outcome = Ok(RequestDone {
        revision: Revision(4),
        refused,
    });
    conn.send(NodeDown::RequestDone {
        request_seq: 1,
        outcome,
    })
    .await;
    let (contention, _session) = asked.await.unwrap().unwrap();
    assert_eq!(contention.groups(), [group("a")]);
    assert_eq!(contention.refused()[0].0, group("b"));
}

#[tokio::test]
async fn opening_waits_for_the_end_of_a_former_session_under_a_new_request() {
    let mut fake = Fake::start().await;
    let client = client(&[&fake]);
    let opening = tokio::spawn(async move { client.open_session(options()).await });
    let mut conn = fake.node().await;
    let Some(NodeUp::Open {
        request_id: first, ..
    }) = conn.next().await
    else {
        panic!("not opened")
    };
    let error = ApiError::new(ApiErrorKind::NodeLive, "node n1 is live");
    conn.send(NodeDown::Refused {
        request_seq: None,
        error,
    })
    .await;
    let mut conn = fake.node().await;
    assert_ne!(
        conn.open().await,
        first,
        "the refusal is remembered under the first id"
    );
    opening.await.unwrap().unwrap();
}

#[tokio::test]
async fn opening_fails_at_once_where_trying_again_is_no_use() {
    let mut fake = Fake::start().await;
    let client = client(&[&fake]);
    let opening = tokio::spawn(async move { client.open_session(options()).await.map(|_| ()) });
    let mut conn = fake.node().await;
    let Some(NodeUp::Open { .. }) = conn.next().await else {
        panic!("not opened")
    };
    let error = ApiError::new(
        ApiErrorKind::NewerContract,
        "the node speaks 1, this cluster 2",
    );
    conn.send(NodeDown::Refused {
        request_seq: None,
        error,
    })
    .await;
    let error = opening.await.unwrap().unwrap_err();
    assert_eq!(error.api_kind(), Some(ApiErrorKind::NewerContract));
}

#[tokio::test]
async fn closing_ends_belief_first_and_waits_for_the_server() {
    let mut fake = Fake::start().await;
    let client = client(&[&fake]);
    let (session, mut events, mut conn, leadership) = leading(&mut fake, &client).await;
    let closing = tokio::spawn(session.close());
    let NodeUp::Close { request_seq: 1 } = conn.request().await else {
        panic!("not closed")
    };
    assert!(!leadership.check());
    conn.send(NodeDown::SessionGone).await;
    closing.await.unwrap().unwrap();
    let Some(SessionEvent::Lost {
        cause: LostCause::Closed,
        ..
    }) = events.next().await
    else {
        panic!("not lost")
    };
}

#[tokio::test]
async fn a_dropped_session_is_closed_in_the_background() {
    let mut fake = Fake::start().await;
    let client = client(&[&fake]);
    let (session, events, mut conn, leadership) = leading(&mut fake, &client).await;
    drop((session, events));
    assert!(matches!(conn.request().await, NodeUp::Close { .. }));
    assert!(!leadership.check());
}
