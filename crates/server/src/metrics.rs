//! The server's metrics: one registry per server, so that several in one process do not mix.
//!
//! Owns: names, help texts and handles. Deliberately absent: a global recorder.

use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder, SharedString, Unit,
};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

static METADATA: Metadata<'static> = Metadata::new("quorate", Level::INFO, None);
const SECONDS: &[f64] = &[
    0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0,
];

/// Handles of every metric of one server.
pub(crate) struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    pub(crate) has_leader: Gauge,
    pub(crate) is_leader: Gauge,
    pub(crate) term: Gauge,
    pub(crate) leader_changes: Counter,
    pub(crate) elections: Counter,
    pub(crate) leaderless_seconds: Histogram,
    pub(crate) applied_index: Gauge,
    pub(crate) applied_entries: Counter,
    pub(crate) revision: Gauge,
    pub(crate) step_seconds: Histogram,
    pub(crate) queue_vital: Gauge,
    pub(crate) queue_log: Gauge,
    pub(crate) queue_calls: Gauge,
    pub(crate) waiting_calls: Gauge,
    pub(crate) proposals: Counter,
    pub(crate) keep_alives: Counter,
    pub(crate) reads: Counter,
    pub(crate) refused_overloaded: Counter,
    pub(crate) refused_no_leader: Counter,
    pub(crate) unknown_outcomes: Counter,
    pub(crate) sync_seconds: Histogram,
    pub(crate) log_entries: Counter,
    pub(crate) log_syncs: Counter,
    pub(crate) snapshots_saved: Counter,
    pub(crate) snapshots_installed: Counter,
    pub(crate) snapshot_seconds: Histogram,
    pub(crate) peer_connections: Gauge,
    pub(crate) http_connections: Gauge,
    pub(crate) http_garbage: Counter,
    pub(crate) watch_streams: Gauge,
    pub(crate) node_streams: Gauge,
    pub(crate) watch_resyncs: Counter,
    pub(crate) kv_watch_streams: Gauge,
    pub(crate) kv_watches: Gauge,
    pub(crate) kv_watches_behind: Gauge,
    pub(crate) kv_watch_queued_events: Gauge,
    pub(crate) kv_watch_queued_bytes: Gauge,
    pub(crate) kv_watch_events: Counter,
    pub(crate) expiry_lag_seconds: Gauge,
    pub(crate) fault_reports: Counter,
    pub(crate) deposed: Counter,
}

impl Metrics {
    pub(crate) fn new(version: &'static str) -> Self {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)
            .expect("the buckets are not empty")
            .build_recorder();
        let handle = recorder.handle();
        let counter = |name: &'static str, help: &'static str| {
            recorder.describe_counter(
                KeyName::from_const_str(name),
                None,
                SharedString::const_str(help),
            );
            recorder.register_counter(&Key::from_static_name(name), &METADATA)
        };
        let gauge = |name: &'static str, help: &'static str| {
            recorder.describe_gauge(
                KeyName::from_const_str(name),
                None,
                SharedString::const_str(help),
            );
            recorder.register_gauge(&Key::from_static_name(name), &METADATA)
        };
        let seconds = |name: &'static str, help: &'static str| {
            recorder.describe_histogram(
                KeyName::from_const_str(name),
                Some(Unit::Seconds),
                SharedString::const_str(help),
            );
            recorder.register_histogram(&Key::from_static_name(name), &METADATA)
        };
        let refused = |reason: &'static str| {
            let key = Key::from_static_parts("quorate_calls_refused_total", reason_label(reason));
            recorder.register_counter(&key, &METADATA)
        };
        recorder.describe_counter(
            "quorate_calls_refused_total".into(),
            None,
            "Calls refused before they had any effect, by reason.".into(),
        );
        for (name, help) in [
            (
                "quorate_peer_refused_total",
                "Peer connections refused, by reason.",
            ),
            (
                "quorate_peer_sent_bytes_total",
                "Bytes sent to peers, by lane.",
            ),
            (
                "quorate_peer_dropped_messages_total",
                "Messages dropped because a lane's queue was full, by lane.",
            ),
        ] {
            recorder.describe_counter(name.into(), None, help.into());
        }
        recorder.describe_gauge("quorate_groups".into(), None, "Groups by phase.".into());
        recorder.describe_gauge("quorate_sessions".into(), None, "Live sessions.".into());
        recorder.describe_gauge(
            "quorate_build_info".into(),
            None,
            "1, labelled with the version.".into(),
        );
        recorder
            .register_gauge(
                &Key::from_parts("quorate_build_info", vec![Label::new("version", version)]),
                &METADATA,
            )
            .set(1.0);
        Self {
            has_leader: gauge(
                "quorate_backbone_has_leader",
                "1 while this server knows the backbone's leader.",
            ),
            is_leader: gauge(
                "quorate_backbone_is_leader",
                "1 while this server leads the backbone.",
            ),
            term: gauge("quorate_backbone_term", "The backbone's term."),
            leader_changes: counter(
                "quorate_backbone_leader_changes_total",
                "Times that this server learned of another leader.",
            ),
            elections: counter(
                "quorate_backbone_elections_total",
                "Elections in which this server stood.",
            ),
            leaderless_seconds: seconds(
                "quorate_backbone_leaderless_seconds",
                "Time from losing the leader (or starting) until this server knew the next.",
            ),
            applied_index: gauge(
                "quorate_backbone_applied_index",
                "The last log index applied here.",
            ),
            applied_entries: counter(
                "quorate_backbone_applied_entries_total",
                "Log entries applied here since the start.",
            ),
            revision: gauge(
                "quorate_state_revision",
                "The revision of the published state.",
            ),
            step_seconds: seconds(
                "quorate_step_batch_seconds",
                "Time of one round of the step thread, outputs included.",
            ),
            queue_vital: gauge(
                "quorate_queue_vital_items",
                "Vital inputs that waited at the last round.",
            ),
            queue_log: gauge(
                "quorate_queue_log_items",
                "Appends and snapshot pieces that waited at the last round.",
            ),
            queue_calls: gauge(
                "quorate_queue_calls_items",
                "Calls that waited at the last round.",
            ),
            waiting_calls: gauge(
                "quorate_calls_waiting_items",
                "Calls that wait in the replica for the log, a round or a leader.",
            ),
            proposals: counter(
                "quorate_calls_proposals_total",
                "Commands that clients of this server proposed.",
            ),
            keep_alives: counter(
                "quorate_calls_keep_alives_total",
                "Keep-alives that arrived here.",
            ),
            reads: counter(
                "quorate_calls_reads_total",
                "Linearizable reads that arrived here.",
            ),
            refused_overloaded: refused("overloaded"),
            refused_no_leader: refused("no_leader"),
            unknown_outcomes: counter(
                "quorate_calls_unknown_total",
                "Calls whose outcome this server could not tell.",
            ),
            sync_seconds: seconds("quorate_log_sync_seconds", "Time of one sync of the log."),
            log_entries: counter("quorate_log_entries_total", "Entries written to the log."),
            log_syncs: counter(
                "quorate_log_syncs_total",
                "Syncs of the log: each makes everything before it durable.",
            ),
            snapshots_saved: counter("quorate_snapshots_saved_total", "Snapshots saved."),
            snapshots_installed: counter(
                "quorate_snapshots_installed_total",
                "Snapshots received from a leader and installed.",
            ),
            snapshot_seconds: seconds(
                "quorate_snapshot_save_seconds",
                "Time to encode and save one snapshot.",
            ),
            peer_connections: gauge(
                "quorate_peer_connections",
                "Open connections to peers, three for each.",
            ),
            http_connections: gauge(
                "quorate_client_connections",
                "Open connections on the client port.",
            ),
            http_garbage: counter(
                "quorate_client_broken_connections_total",
                "Client connections closed because they spoke no protocol of ours.",
            ),
            watch_streams: gauge("quorate_watch_streams", "Open watches."),
            node_streams: gauge("quorate_node_streams", "Open node streams."),
            watch_resyncs: counter(
                "quorate_watch_resyncs_total",
                "Streams that fell behind and were told to start over.",
            ),
            kv_watch_streams: gauge(
                "quorate_kv_watch_streams",
                "Open streams of watches of the key space.",
            ),
            kv_watches: gauge("quorate_kv_watches", "Watches of the key space."),
            kv_watches_behind: gauge(
                "quorate_kv_watches_behind",
                "Watches of the key space that catch up: created in the past, or their client reads too slowly.",
            ),
            kv_watch_queued_events: gauge(
                "quorate_kv_watch_queued_events",
                "Events that wait for the streams of their watches.",
            ),
            kv_watch_queued_bytes: gauge(
                "quorate_kv_watch_queued_bytes",
                "Bytes of the events that wait for the streams of their watches.",
            ),
            kv_watch_events: counter(
                "quorate_kv_watch_events_total",
                "Events sent to watches of the key space.",
            ),
            expiry_lag_seconds: gauge(
                "quorate_sessions_expiry_lag_seconds",
                "How late the most overdue session's expiry is; only on the leader.",
            ),
            fault_reports: counter(
                "quorate_tenures_fault_reports_total",
                "Contenders' reports of faulty holders, applied here since the start.",
            ),
            deposed: counter(
                "quorate_tenures_deposed_total",
                "Tenures that a quorum of reports revoked, applied here since the start.",
            ),
            recorder,
            handle,
        }
    }

    fn labelled(&self, name: &'static str, label: &'static str, value: &'static str) -> Counter {
        self.recorder.register_counter(
            &Key::from_parts(name, vec![Label::new(label, value)]),
            &METADATA,
        )
    }

    pub(crate) fn peer_refused(&self, reason: &'static str) -> Counter {
        self.labelled("quorate_peer_refused_total", "reason", reason)
    }

    pub(crate) fn peer_sent_bytes(&self, lane: &'static str) -> Counter {
        self.labelled("quorate_peer_sent_bytes_total", "lane", lane)
    }

    pub(crate) fn peer_dropped(&self, lane: &'static str) -> Counter {
        self.labelled("quorate_peer_dropped_messages_total", "lane", lane)
    }

    pub(crate) fn set_groups(&self, phase: &'static str, count: usize) {
        let key = Key::from_parts("quorate_groups", vec![Label::new("phase", phase)]);
        self.recorder
            .register_gauge(&key, &METADATA)
            .set(count as f64);
    }

    pub(crate) fn set_sessions(&self, count: usize) {
        self.recorder
            .register_gauge(&Key::from_static_name("quorate_sessions"), &METADATA)
            .set(count as f64);
    }

    /// The text that Prometheus scrapes.
    pub(crate) fn render(&self) -> String {
        self.handle.run_upkeep();
        self.handle.render()
    }
}

fn reason_label(reason: &'static str) -> &'static [Label] {
    static OVERLOADED: [Label; 1] = [Label::from_static_parts("reason", "overloaded")];
    static NO_LEADER: [Label; 1] = [Label::from_static_parts("reason", "no_leader")];
    if reason == "overloaded" {
        &OVERLOADED
    } else {
        &NO_LEADER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_registries_do_not_mix_and_histograms_have_buckets() {
        let (a, b) = (Metrics::new("1"), Metrics::new("1"));
        a.proposals.increment(3);
        a.sync_seconds.record(0.002);
        a.peer_refused("foreign_cluster").increment(1);
        let text = a.render();
        assert!(text.contains("quorate_calls_proposals_total 3"), "{text}");
        assert!(
            text.contains("quorate_log_sync_seconds_bucket{le=\"0.003\"} 1"),
            "{text}"
        );
        assert!(
            text.contains("quorate_peer_refused_total{reason=\"foreign_cluster\"} 1"),
            "{text}"
        );
        assert!(b.render().contains("quorate_calls_proposals_total 0"));
    }
}
