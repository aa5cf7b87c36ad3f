//! Spans as OpenTelemetry gets them: the run of a handler links to the publishing of its message.

use std::sync::Arc;
use std::time::Duration;

use longshore_core::{Failure, HeaderName, Message, Policy, Setup};
use longshore_runtime::{Client, TokioClock};
use opentelemetry::trace::{SpanKind, TracerProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use tracing_subscriber::layer::SubscriberExt;

const USERS: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn attribute(span: &SpanData, name: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key.as_str() == name);
    found.map_or_else(String::new, |attribute| attribute.value.to_string())
}

#[tokio::test(start_paused = true)]
async fn a_run_links_to_the_publishing_of_its_message_however_often_it_is_tried() {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));

    let setup = Setup { clock: Arc::new(TokioClock::new()), ..Setup::default() };
    let memory = longshore_memory::connect("memory://", setup.clone()).await.unwrap();
    let client = Client::new(Arc::new(memory), setup);
    let hour = Duration::from_secs(3_600);
    let policy = Policy::builder().max_attempts(2).fast_delays([]).delayed([hour]);
    let refuse = |_: u64| async { Err(Failure::transient("closed")) };
    let policy = policy.jitter(0.0).build().unwrap();
    let worker = client.worker("orders", "billing").policy(policy).json(refuse);
    let worker = worker.start().await.unwrap();
    let sender = client.sender("orders").await.unwrap();
    sender.send(Message::json(&1_u64).unwrap()).await.unwrap();
    let name = HeaderName::new("traceparent").unwrap();
    sender.send(Message::json(&2_u64).unwrap().header(name, USERS)).await.unwrap();
    worker.idle().await;
    worker.stop().await.unwrap();
    provider.force_flush().unwrap();

    let spans = exporter.get_finished_spans().unwrap();
    let sent: Vec<_> = spans.iter().filter(|span| span.name == "send orders").collect();
    let runs: Vec<_> = spans.iter().filter(|span| span.name == "process orders").collect();
    assert_eq!((sent.len(), runs.len()), (2, 4));
    for span in &sent {
        assert_eq!(span.span_kind, SpanKind::Producer);
        assert_eq!(attribute(span, "messaging.system"), "memory");
        assert_eq!(attribute(span, "messaging.destination.name"), "orders");
    }
    for span in &runs {
        assert_eq!(span.span_kind, SpanKind::Consumer);
        assert_eq!(attribute(span, "messaging.consumer.group.name"), "billing");
        assert_eq!(attribute(span, "longshore.outcome"), "transient");
        assert_eq!(span.links.len(), 1);
        // A retry comes an hour later: no child of a span that ended long ago.
        let link = &span.links[0].span_context;
        assert_ne!(span.span_context.trace_id(), link.trace_id());
    }
    let ours = &sent[0].span_context;
    let linked = |trace: &str, attempt: &str| {
        let same = |span: &&&SpanData| {
            span.links[0].span_context.trace_id().to_string() == trace
                && attribute(span, "longshore.attempt") == attempt
        };
        runs.iter().filter(same).count()
    };
    for attempt in ["1", "2"] {
        assert_eq!(linked(&ours.trace_id().to_string(), attempt), 1);
        // What the user set is not overwritten.
        assert_eq!(linked("4bf92f3577b34da6a3ce929d0e0e4736", attempt), 1);
    }
    let of_ours = runs.iter().find(|span| span.links[0].span_context.trace_id() == ours.trace_id());
    assert_eq!(of_ours.unwrap().links[0].span_context.span_id(), ours.span_id());
}
