//! Every metric there is: the one place that names them.

use metrics::{KeyName, SharedString, Unit};

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Goes up only.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
}

/// One metric of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name, in Prometheus' spelling.
    pub name: &'static str,
    /// What it is.
    pub kind: MetricKind,
    /// The names of its labels. Their values come from closed sets, but for the names of topics and
    /// groups: never ids, keys, error texts or header values.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

const SENDER: &[&str] = &["backend", "topic"];
const GROUP: &[&str] = &["backend", "topic", "group"];

macro_rules! metrics {
    ($($kind:ident $name:ident = $text:literal $labels:expr, $help:literal;)+) => {
        $(pub(crate) const $name: &str = $text;)+

        /// All of them, as documented.
        pub const METRICS: &[Metric] = &[
            $(Metric { name: $text, kind: MetricKind::$kind, labels: $labels, help: $help },)+
        ];
    };
}

metrics! {
    Counter PUBLISHED = "longshore_published_total" &["backend", "topic", "outcome"],
        "Messages given to a sender, by outcome: confirmed, refused, unroutable, unknown, not_sent.";
    Histogram PUBLISH_SECONDS = "longshore_publish_seconds" SENDER,
        "From the send to its confirmation.";
    Gauge PUBLISH_IN_FLIGHT = "longshore_publish_in_flight" SENDER,
        "Messages that wait for their confirmation.";
    Counter HANDLED = "longshore_handled_total" &["backend", "topic", "group", "outcome"],
        "Handler runs, by outcome: ok, transient, permanent, rejected, discarded, panicked, \
         timed_out, undecodable, cancelled, lease_lost.";
    Histogram HANDLER_SECONDS = "longshore_handler_seconds" GROUP,
        "How long handler runs took.";
    Histogram QUEUED_SECONDS = "longshore_queued_seconds" GROUP,
        "From publishing to the handler's start, first deliveries only.";
    Counter SETTLED = "longshore_settled_total" &["backend", "topic", "group", "verdict", "result"],
        "Settlements, by verdict (ack, retry, dead_letter, suspect, release, discard) and result \
         (ok, failed, lease_lost).";
    Counter FAST_RETRIES = "longshore_fast_retries_total" GROUP,
        "Retries in process.";
    Histogram RETRY_LATE_SECONDS = "longshore_retry_late_seconds" GROUP,
        "From the time that a delayed retry was due to its delivery.";
    Counter DEAD_LETTERED = "longshore_dead_lettered_total" &["backend", "topic", "group", "reason"],
        "Messages that became dead letters, by reason.";
    Counter REDELIVERED = "longshore_redelivered_total" &["backend", "topic", "group", "explained"],
        "Deliveries that were not the first; unexplained ones came back after a crash or a lost \
         connection.";
    Gauge IN_FLIGHT = "longshore_in_flight" GROUP,
        "Deliveries that the worker holds.";
    Gauge BUFFERED = "longshore_buffered" GROUP,
        "Deliveries that wait in the worker for a free slot.";
    Gauge READY = "longshore_ready" GROUP,
        "Messages ready in the broker.";
    Gauge WAITING = "longshore_waiting" GROUP,
        "Messages that wait for a delayed retry.";
    Gauge SUSPECTS = "longshore_suspects" GROUP,
        "Messages in the suspect lane.";
    Gauge DEAD = "longshore_dead" GROUP,
        "Dead letters in the queue.";
    Gauge UNROUTED = "longshore_unrouted" GROUP,
        "Messages that the broker parks because they had nowhere to go, of all topics that share the \
         place.";
    Gauge OLDEST_SECONDS = "longshore_oldest_seconds" &["backend", "topic", "group", "place"],
        "Age of the oldest message, by place: ready, waiting, dead.";
    Gauge CONNECTION_STATE = "longshore_connection_state" GROUP,
        "1 while the worker is attached to the broker, 0 while it reconnects.";
    Counter RECONNECTS = "longshore_reconnects_total" GROUP,
        "How often the worker was attached again.";
    Gauge BREAKER_STATE = "longshore_breaker_state" GROUP,
        "The circuit breaker: 0 closed, 1 half-open, 2 open.";
    Gauge WORKER_READY = "longshore_worker_ready" GROUP,
        "1 while the worker's health says ready.";
    Counter ALARMS = "longshore_alarms_total" &["backend", "kind"],
        "Alarms, by kind.";
}

/// Tells the recorder of the process what each name means.
pub(crate) fn describe() {
    metrics::with_recorder(|recorder| {
        for metric in METRICS {
            let name = KeyName::from_const_str(metric.name);
            let unit = match metric.kind {
                MetricKind::Histogram => Some(Unit::Seconds),
                _ if metric.name.ends_with("_seconds") => Some(Unit::Seconds),
                _ => Some(Unit::Count),
            };
            let help = SharedString::const_str(metric.help);
            match metric.kind {
                MetricKind::Counter => recorder.describe_counter(name, unit, help),
                MetricKind::Gauge => recorder.describe_gauge(name, unit, help),
                MetricKind::Histogram => recorder.describe_histogram(name, unit, help),
            }
        }
    });
}
