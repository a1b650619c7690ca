//! The Rust crate `etcd-client`.

use std::future::Future;
use std::time::{Duration, Instant};

use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, DeleteOptions, Error, EventType, GetOptions,
    LockOptions, Permission, PutOptions, ResignOptions, Txn, TxnOp, WatchOptions,
};
use tokio::io::{AsyncBufReadExt, BufReader};

/// Until it works: for the time without a leader.
async fn again<T, F: Future<Output = Result<T, Error>>>(mut work: impl FnMut() -> F) -> T {
    let begun = Instant::now();
    loop {
        match work().await {
            Ok(done) => return done,
            Err(error) if begun.elapsed() > Duration::from_secs(20) => panic!("{error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn connect(endpoints: &[String], user: Option<(&str, &str)>) -> Result<Client, Error> {
    let mut options = ConnectOptions::new().with_timeout(Duration::from_secs(5));
    if let Some((name, password)) = user {
        options = options.with_user(name, password);
    }
    Client::connect(endpoints, Some(options)).await
}

/// The servers that answer.
async fn alive(endpoints: &[String]) -> Vec<String> {
    let mut alive = Vec::new();
    for endpoint in endpoints {
        let only = [endpoint.clone()];
        if let Ok(mut client) = connect(&only, None).await
            && client.status().await.is_ok()
        {
            alive.extend(only);
        }
    }
    alive
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let endpoints = std::env::var("ENDPOINTS").expect("`ENDPOINTS` is set");
    let endpoints: Vec<String> = endpoints.split(',').map(str::to_owned).collect();
    let mut client = connect(&endpoints, None).await?;

    let all = Some(DeleteOptions::new().with_prefix());
    client.delete("rust/", all).await?;
    client.put("rust/a", "one", None).await?;
    client.put("rust/b", "two", None).await?;
    let found = client
        .get("rust/", Some(GetOptions::new().with_prefix()))
        .await?;
    assert_eq!(found.count(), 2);
    let before = client
        .put("rust/a", "1", Some(PutOptions::new().with_prev_key()))
        .await?;
    assert_eq!(before.prev_key().unwrap().value(), b"one");
    assert_eq!(client.delete("rust/b", None).await?.deleted(), 1);
    println!("keys");

    let txn = Txn::new()
        .when([Compare::value("rust/a", CompareOp::Equal, "1")])
        .and_then([TxnOp::put("rust/a", "2", None)])
        .or_else([TxnOp::put("rust/a", "no", None)]);
    assert!(client.txn(txn).await?.succeeded());
    println!("transactions");

    let mut watch = client
        .watch("rust/w", Some(WatchOptions::new().with_prefix()))
        .await?;
    client.put("rust/w1", "x", None).await?;
    client.delete("rust/w1", None).await?;
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let told = watch.message().await?.expect("the watch goes on");
        seen.extend(told.events().iter().map(|event| event.event_type()));
    }
    assert_eq!(seen, [EventType::Put, EventType::Delete]);
    println!("watch");

    let lease = client.lease_grant(60, None).await?.id();
    let leased = PutOptions::new().with_lease(lease);
    client.put("rust/leased", "x", Some(leased)).await?;
    let (mut keeper, mut kept) = client.lease_keep_alive(lease).await?;
    keeper.keep_alive().await?;
    assert_eq!(kept.message().await?.expect("an answer").ttl(), 60);
    client.lease_revoke(lease).await?;
    assert_eq!(client.get("rust/leased", None).await?.count(), 0);
    println!("leases");

    let lease = client.lease_grant(60, None).await?.id();
    let held = client
        .lock("rust-lock", Some(LockOptions::new().with_lease(lease)))
        .await?;
    client.unlock(held.key()).await?;
    let won = client.campaign("rust-election", "me", lease).await?;
    let leader = won.leader().expect("who leads").clone();
    let told = client.leader("rust-election").await?;
    assert_eq!(told.kv().unwrap().value(), b"me");
    let mut observed = client.observe("rust-election").await?;
    let first = observed.message().await?.expect("the leader");
    assert_eq!(first.kv().unwrap().value(), b"me");
    println!("locks and elections");

    client.put("rust/before", "kept", None).await?;
    println!("kill");
    BufReader::new(tokio::io::stdin())
        .lines()
        .next_line()
        .await?;
    let found = again(|| {
        let mut client = client.clone();
        async move { client.get("rust/before", None).await }
    })
    .await;
    assert_eq!(found.kvs()[0].value(), b"kept");
    again(|| {
        let mut client = client.clone();
        async move { client.put("rust/after", "x", None).await }
    })
    .await;
    // The lease lived on, and with it the lead.
    let told = again(|| {
        let mut client = client.clone();
        async move { client.leader("rust-election").await }
    })
    .await;
    assert_eq!(told.kv().unwrap().value(), b"me");
    again(|| {
        let (mut client, leader) = (client.clone(), leader.clone());
        async move {
            let resign = ResignOptions::new().with_leader(leader);
            client.resign(Some(resign)).await
        }
    })
    .await;
    println!("all of it through the loss of the leader");

    // It does not pass by the server that is gone by itself: each failed call would have to be looked at, applied or not.
    let endpoints = alive(&endpoints).await;
    client = connect(&endpoints, None).await?;
    client.user_add("root", "secret", None).await?;
    // A real etcd has no such role until it is made.
    let _ = client.role_add("root").await;
    client.user_grant_role("root", "root").await?;
    client.role_add("rust-reader").await?;
    let reads = Permission::read("rust/before");
    client.role_grant_permission("rust-reader", reads).await?;
    client.user_add("rust-user", "secret", None).await?;
    client.user_grant_role("rust-user", "rust-reader").await?;
    client.auth_enable().await?;
    let mut reader = connect(&endpoints, Some(("rust-user", "secret"))).await?;
    assert_eq!(reader.get("rust/before", None).await?.count(), 1);
    let denied = reader.put("rust/before", "x", None).await.unwrap_err();
    assert!(denied.to_string().contains("permission denied"), "{denied}");
    let wrong = connect(&endpoints, Some(("rust-user", "wrong"))).await;
    let wrong = wrong.err().expect("the password is wrong").to_string();
    assert!(wrong.contains("authentication failed"), "{wrong}");
    let mut root = connect(&endpoints, Some(("root", "secret"))).await?;
    root.auth_disable().await?;
    client.user_delete("rust-user").await?;
    client.role_delete("rust-reader").await?;
    client.user_delete("root").await?;
    client.role_delete("root").await?;
    println!("users and roles");
    Ok(())
}
