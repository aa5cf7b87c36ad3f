//! The spans, with the names of OpenTelemetry's messaging conventions. Each is made only where its
//! level is enabled.
//!
//! <https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/>

use longshore_core::{MessageId, Receipt, Received, Result};
use tracing::Span;
use tracing::field::Empty;

use crate::engine::{Ended, RunEnd};

/// One `send`, or one batch.
pub(crate) fn send(backend: &'static str, topic: &str, count: usize) -> Span {
    tracing::info_span!(
        target: "longshore", "send",
        otel.name = format_args!("send {topic}"), otel.kind = "producer",
        messaging.system = backend, messaging.operation.type = "send",
        messaging.operation.name = "send", messaging.destination.name = topic,
        messaging.batch.message_count = (count > 1).then_some(count), messaging.message.id = Empty,
        error.type = Empty,
    )
}

/// Names the message of a `send` of one.
pub(crate) fn name(span: &Span, id: &MessageId) {
    if !span.is_disabled() {
        id.with_str(|id| span.record("messaging.message.id", id));
    }
}

/// What became of it. Of a batch: of one that failed.
pub(crate) fn sent(span: &Span, outcome: &Result<Receipt>) {
    if let Err(error) = outcome
        && !span.is_disabled()
    {
        span.record("error.type", tracing::field::debug(error.kind()));
    }
}

/// One handler run. It links to the span of its publishing, and is no child of it: a retry may come
/// hours later.
pub(crate) fn process(
    backend: &'static str,
    group: &str,
    received: &Received,
    attempt: u32,
) -> Span {
    let topic = received.topic.as_str();
    let span = tracing::info_span!(
        target: "longshore", "process",
        otel.name = format_args!("process {topic}"), otel.kind = "consumer",
        messaging.system = backend, messaging.operation.type = "process",
        messaging.operation.name = "process", messaging.destination.name = topic,
        messaging.consumer.group.name = group, messaging.message.id = Empty,
        messaging.message.body.size = received.body.len(),
        longshore.attempt = attempt, longshore.deliveries = received.deliveries,
        longshore.outcome = Empty, error.type = Empty,
    );
    if !span.is_disabled() {
        if let Some(id) = &received.id {
            id.with_str(|id| span.record("messaging.message.id", id));
        }
        super::trace::link(&span, &received.headers);
    }
    span
}

/// How the run ended.
pub(crate) fn ended(span: &Span, ended: &Ended) {
    if span.is_disabled() {
        return;
    }
    let outcome = match ended {
        Ended::Ok => "ok",
        Ended::Cancelled => "cancelled",
        Ended::Failed(failure) => {
            span.record("error.type", failure.error_type());
            RunEnd::of(failure, true).as_str()
        }
    };
    span.record("longshore.outcome", outcome);
}
