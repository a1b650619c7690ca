//! Passwords: hashed and compared with bcrypt, on threads of their own and few at a time, since each costs what a thousand puts cost.
//!
//! Deliberately absent: storing anything. A password in the clear never leaves this process, and no log line has one.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use quorate_coord::kv::Secret;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

/// So many wait for their turn at most; more are refused at once rather than much later.
const WAITING_MAX: usize = 256;

/// Compares and hashes.
#[derive(Clone)]
pub(super) struct Passwords {
    cost: u32,
    token_ttl: Duration,
    turns: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    /// What the password of nobody is compared with, so that the time taken does not tell who exists.
    nobody: Arc<OnceLock<Secret>>,
}

impl Passwords {
    pub(super) fn new(cost: u32, token_ttl: Duration) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
        Self {
            cost,
            token_ttl,
            turns: Arc::new(Semaphore::new(processors.div_ceil(2))),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
            nobody: Arc::default(),
        }
    }

    /// How long a token is good for.
    pub(super) fn token_ttl(&self) -> Duration {
        self.token_ttl
    }

    /// The hash to be stored of a new password.
    pub(super) async fn hash(&self, password: String) -> Result<Secret, Status> {
        let cost = self.cost;
        self.aside(move || hash(&password, cost)).await
    }

    /// Whether the password is the one of the hash; of `None` none is.
    pub(super) async fn matches(
        &self,
        password: String,
        stored: Option<Secret>,
    ) -> Result<bool, Status> {
        let (cost, nobody) = (self.cost, Arc::clone(&self.nobody));
        self.aside(move || {
            let is_somebody = stored.is_some();
            let stored = stored.unwrap_or_else(|| nobody.get_or_init(|| hash("", cost)).clone());
            let matches = std::str::from_utf8(stored.as_bytes())
                .is_ok_and(|stored| bcrypt::verify(password, stored).unwrap_or(false));
            matches && is_somebody
        })
        .await
    }

    async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Status> {
        let _place = self
            .waiting
            .try_acquire()
            .map_err(|_| Status::resource_exhausted("etcdserver: too many requests"))?;
        let turn: OwnedSemaphorePermit = Arc::clone(&self.turns)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        done.await
            .map_err(|_| Status::internal("quorate: hashing broke off; the log says why"))
    }
}

fn hash(password: &str, cost: u32) -> Secret {
    let hash = bcrypt::hash(password, cost).expect("the configuration's cost is within bounds");
    Secret::from(hash.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_matches_its_own_hash_only() {
        let passwords = Passwords::new(4, Duration::ZERO);
        let hash = passwords.hash("secret".to_owned()).await.unwrap();
        let matches = async |password: &str, stored: Option<&Secret>| {
            passwords
                .matches(password.to_owned(), stored.cloned())
                .await
                .unwrap()
        };
        assert!(matches("secret", Some(&hash)).await);
        assert!(!matches("Secret", Some(&hash)).await);
        assert!(!matches("", None).await, "nobody has no password");
        // As Go writes them: hashes taken over from etcd go on working.
        let of_etcd = b"$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW".as_slice();
        assert!(matches("U*U", Some(&Secret::from(of_etcd))).await);
        assert!(!matches("U*V", Some(&Secret::from(of_etcd))).await);
        assert!(!matches("x", Some(&Secret::from(b"no hash".as_slice()))).await);
    }
}
