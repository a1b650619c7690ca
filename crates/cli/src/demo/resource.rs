//! A resource that leaders write to, guarded by fencing tokens: the last line of defence (guarantee 4), which must turn
//! away who acts on a check that was true once.
//!
//! A line each way: `GROUP TOKEN` asks for a write; `ok` or `stale` answers, in order.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use quorate_client::Fence;
use quorate_types::{FencingToken, GroupName};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

#[derive(Debug, Default)]
struct Guarded {
    fences: BTreeMap<GroupName, Fence>,
    writes: u64,
    stale: u64,
}

/// The resource.
#[derive(Clone, Debug)]
pub(super) struct Resource {
    guarded: Arc<Mutex<Guarded>>,
    address: SocketAddr,
}

impl Resource {
    /// Serves on a free port of the loopback address until the runtime ends.
    pub(super) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .context("start the fenced resource")?;
        let address = listener.local_addr().context("start the fenced resource")?;
        let resource = Self {
            guarded: Arc::default(),
            address,
        };
        let accepting = resource.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let serving = accepting.clone();
                tokio::spawn(async move {
                    // A node that was killed breaks its connection off.
                    let _ = serving.serve(stream).await;
                });
            }
        });
        Ok(resource)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    async fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read).lines();
        while let Some(line) = lines.next_line().await? {
            let request = line.split_once(' ').and_then(|(group, token)| {
                Some((
                    GroupName::new(group).ok()?,
                    FencingToken(token.parse().ok()?),
                ))
            });
            let Some((group, token)) = request else {
                return Ok(());
            };
            let answer = if self.write(group, token) {
                "ok\n"
            } else {
                "stale\n"
            };
            write.write_all(answer.as_bytes()).await?;
        }
        Ok(())
    }

    fn write(&self, group: GroupName, token: FencingToken) -> bool {
        let mut guarded = self.guarded.lock().unwrap_or_else(PoisonError::into_inner);
        let admitted = guarded
            .fences
            .entry(group)
            .or_default()
            .admit(token)
            .is_ok();
        guarded.writes += u64::from(admitted);
        guarded.stale += u64::from(!admitted);
        admitted
    }

    /// The highest token that wrote for a group.
    pub(super) fn highest(&self, group: &GroupName) -> FencingToken {
        let guarded = self.guarded.lock().unwrap_or_else(PoisonError::into_inner);
        guarded
            .fences
            .get(group)
            .map_or(FencingToken::ZERO, Fence::highest)
    }

    /// Writes let through, and stale writes turned away.
    pub(super) fn counts(&self) -> (u64, u64) {
        let guarded = self.guarded.lock().unwrap_or_else(PoisonError::into_inner);
        (guarded.writes, guarded.stale)
    }
}

/// A node's connection to the resource.
pub(super) struct ResourceClient {
    lines: tokio::io::Lines<BufReader<OwnedReadHalf>>,
    write: OwnedWriteHalf,
}

impl ResourceClient {
    pub(super) async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)
            .await
            .context("connect to the fenced resource")?;
        stream
            .set_nodelay(true)
            .context("connect to the fenced resource")?;
        let (read, write) = stream.into_split();
        Ok(Self {
            lines: BufReader::new(read).lines(),
            write,
        })
    }

    /// Writes once for each group; says of each whether it was let through.
    pub(super) async fn write(
        &mut self,
        writes: &[(GroupName, FencingToken)],
    ) -> anyhow::Result<Vec<bool>> {
        // In portions: neither side's socket buffer fills up while nobody reads.
        let mut admitted = Vec::with_capacity(writes.len());
        for portion in writes.chunks(64) {
            let request: String = portion
                .iter()
                .map(|(group, token)| format!("{group} {token}\n"))
                .collect();
            self.write
                .write_all(request.as_bytes())
                .await
                .context("write to the fenced resource")?;
            for _ in portion {
                let answer = self
                    .lines
                    .next_line()
                    .await
                    .context("read from the fenced resource")?;
                admitted.push(answer.context("the fenced resource closed the connection")? == "ok");
            }
        }
        Ok(admitted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_below_the_highest_is_turned_away_and_counted() {
        let resource = Resource::start().await.unwrap();
        let mut client = ResourceClient::connect(resource.address()).await.unwrap();
        let group = |name: &str| GroupName::new(name).unwrap();
        let writes = [
            (group("a"), 5),
            (group("a"), 7),
            (group("a"), 6),
            (group("b"), 6),
            (group("a"), 7),
        ];
        let writes = writes.map(|(group, token)| (group, FencingToken(token)));
        assert_eq!(
            client.write(&writes).await.unwrap(),
            [true, true, false, true, true]
        );
        assert_eq!(resource.highest(&group("a")), FencingToken(7));
        assert_eq!(resource.counts(), (4, 1));
    }
}
