//! What a node says of others: that a holder is alive but faulty, and now and then that it was wrong.

use quorate_coord::{Command, Phase, TenureKey};

use crate::world::World;

impl World {
    /// Reports a holder, by what the node's server shows of it: at random, and the node that never works well again and again.
    pub(super) fn report_holder(&mut self, node: usize) {
        let violence = self.setup.habits.violence;
        if violence == 0 || self.is_calm() {
            return;
        }
        // In some worlds the first node's leaderships work badly, as all others see.
        let suspects_first = violence >= 8 && node > 0 && self.random.u8(..3) == 0;
        if !suspects_first && self.random.u8(..12) > 0 {
            return;
        }
        let group = self.random.usize(..self.groups.len());
        let this = &self.nodes[node];
        let Some(session) = this.session else { return };
        let Some(running) = &self.servers[this.server].running else {
            return;
        };
        let state = running.replica.state();
        let faulty = suspects_first.then(|| &self.nodes[0].spec.name);
        let led_badly = |group: &quorate_coord::Group| -> Option<TenureKey> {
            let tenure = group.tenure.as_ref()?;
            let is_led = matches!(group.phase, Phase::Active | Phase::Draining);
            let is_meant = faulty.is_none_or(|name| tenure.node.as_ref() == Some(name));
            (is_led && is_meant && tenure.holder != Some(session.id))
                .then(|| group.tenure_key())
                .flatten()
        };
        // The faulty node's first group, or any one.
        let found = if suspects_first {
            state.groups().find_map(led_badly)
        } else {
            state.group(&self.groups[group]).and_then(led_badly)
        };
        let Some(tenure) = found else { return };
        let command = if self.random.u8(..8) == 0 {
            Command::WithdrawReport { session, tenure }
        } else {
            let reason = "its writes time out".to_owned();
            Command::ReportFaulty {
                session,
                tenure,
                reason,
            }
        };
        self.nodes[node].wants.push_back(command);
    }
}
