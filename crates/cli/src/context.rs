//! What every command shares: the connection, the output format, and asking before things change.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use quorate_client::{Client, ClientIdentity, ClientOptions, ClientTls};
use quorate_types::{GroupName, NodeName};
use serde::Serialize;

use crate::args::{Careful, Global};
use crate::exit::{Code, Failure};
use crate::output::{self, Format};

/// Files by which a connection is secured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Certificates {
    pub(crate) cacert: Option<PathBuf>,
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
}

/// What every command shares.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    global: Global,
}

impl Context {
    pub(crate) fn new(global: Global) -> Self {
        Self { global }
    }

    pub(crate) fn format(&self) -> Format {
        self.global.output
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.global.timeout
    }

    pub(crate) fn endpoints(&self) -> &[String] {
        &self.global.endpoints
    }

    /// A client of all endpoints.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        self.client_of(&self.global.endpoints)
    }

    /// A client of these endpoints, with this command line's certificates and patience.
    pub(crate) fn client_of(&self, endpoints: &[String]) -> anyhow::Result<Client> {
        self.client_with(endpoints, Certificates::default())
    }

    /// A client of these endpoints; certificates that are not given are this command line's.
    pub(crate) fn client_with(
        &self,
        endpoints: &[String],
        certificates: Certificates,
    ) -> anyhow::Result<Client> {
        let client = Client::lazy(endpoints, self.options(certificates)?)?;
        Ok(client)
    }

    fn options(&self, certificates: Certificates) -> anyhow::Result<ClientOptions> {
        let read = |path: &Option<PathBuf>| match path {
            None => Ok(None),
            Some(path) => match std::fs::read(path) {
                Ok(pem) => Ok(Some(pem)),
                Err(error) => Err(Failure::usage(format!(
                    "read `{}`: {error}",
                    path.display()
                ))),
            },
        };
        let (ca, cert, key) = (
            read(&certificates.cacert.or(self.global.cacert.clone()))?,
            read(&certificates.cert.or(self.global.cert.clone()))?,
            read(&certificates.key.or(self.global.key.clone()))?,
        );
        let mut options = ClientOptions {
            timeout: self.global.timeout,
            ..ClientOptions::default()
        };
        let identity = cert
            .zip(key)
            .map(|(cert_pem, key_pem)| ClientIdentity { cert_pem, key_pem });
        match (ca, identity) {
            (None, None) => {}
            (None, Some(_)) => {
                let failure = Failure::usage("--cert and --key are given without --cacert");
                return Err(failure
                    .with_hint("--cacert names the authority that signed the servers' certificates")
                    .into());
            }
            (Some(ca_pem), identity) => {
                options.tls = Some(ClientTls {
                    ca_pem,
                    identity,
                    server_name: None,
                });
            }
        }
        Ok(options)
    }

    /// Asks, where there is somebody to ask.
    pub(crate) async fn confirm(&self, careful: Careful, question: &str) -> anyhow::Result<()> {
        if careful.yes || !std::io::stdin().is_terminal() {
            return Ok(());
        }
        eprint!("{question} [y/N] ");
        std::io::stderr().flush()?;
        let answer = tokio::task::spawn_blocking(|| {
            let mut answer = String::new();
            std::io::stdin().read_line(&mut answer).map(|_| answer)
        });
        let answer = answer.await.context("read the answer")??;
        if matches!(answer.trim(), "y" | "Y" | "yes") {
            return Ok(());
        }
        Err(
            Failure::new(Code::Failed, "not confirmed; nothing was done")
                .with_hint("answer `y`, or give --yes")
                .into(),
        )
    }

    /// Prints what was done: a sentence, or the answer itself.
    pub(crate) fn done<T: Serialize>(&self, answer: &T, sentence: &str) -> anyhow::Result<u8> {
        match self.format() {
            Format::Json => output::json(answer)?,
            Format::Table => output::line(sentence)?,
        }
        Ok(0)
    }

    /// Prints what would be done.
    pub(crate) fn say(&self, sentence: &str) -> anyhow::Result<u8> {
        #[derive(Serialize)]
        struct DryRun<'a> {
            dry_run: &'a str,
        }
        self.done(&DryRun { dry_run: sentence }, sentence)
    }
}

/// Checks a group's name.
pub(crate) fn group_name(name: &str) -> anyhow::Result<GroupName> {
    GroupName::new(name)
        .map_err(|error| Failure::usage(format!("group `{}`: {error}", shorten(name))).into())
}

/// Checks a node's name.
pub(crate) fn node_name(name: &str) -> anyhow::Result<NodeName> {
    NodeName::new(name)
        .map_err(|error| Failure::usage(format!("node `{}`: {error}", shorten(name))).into())
}

fn shorten(name: &str) -> String {
    let name = name.escape_debug().to_string();
    if name.chars().count() <= 80 {
        name
    } else {
        name.chars().take(79).chain(['…']).collect()
    }
}

/// The one word by which an enum appears in JSON.
pub(crate) fn word<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word.to_lowercase(),
        Ok(other) => other.to_string(),
        Err(_) => "?".to_owned(),
    }
}
