//! `quorate session`: ends a node's session by order.

use quorate_types::SessionId;

use crate::args::Careful;
use crate::context::Context;

/// Sessions.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SessionArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Verb {
    /// End a session: its tenures are revoked, and it is over once its lease has been waited out.
    Revoke {
        /// Its number, as `quorate node list` shows it.
        session: u64,
        #[command(flatten)]
        careful: Careful,
    },
}

impl SessionArgs {
    pub(crate) async fn run(&self, context: &Context) -> anyhow::Result<u8> {
        let Verb::Revoke { session, careful } = &self.verb;
        let id = SessionId(*session);
        if careful.dry_run {
            return context.say(&format!("would revoke session {id}"));
        }
        context
            .confirm(
                *careful,
                &format!("Revoke session {id}? Its node must stop leading at once."),
            )
            .await?;
        let done = context.client()?.revoke_session(id).await?;
        context.done(&done, &format!("session {id} is revoked"))
    }
}
