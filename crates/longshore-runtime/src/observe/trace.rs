//! W3C trace context between the spans and the headers of messages. Without the feature
//! `opentelemetry` there is no trace to belong to, and headers pass as they are.
//!
//! <https://www.w3.org/TR/trace-context/>

#[cfg(feature = "opentelemetry")]
pub(crate) use otel::{inject, link};
#[cfg(not(feature = "opentelemetry"))]
pub(crate) use without::{inject, link};

#[cfg(not(feature = "opentelemetry"))]
mod without {
    use longshore_core::{Headers, Message};
    use tracing::Span;

    pub(crate) fn inject(_: &Span, _: &mut Message) {}

    pub(crate) fn link(_: &Span, _: &Headers) {}
}

#[cfg(feature = "opentelemetry")]
mod otel {
    use longshore_core::{HeaderName, Headers, Message};
    use opentelemetry::trace::{
        SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState,
    };
    use tracing::Span;
    use tracing_opentelemetry::OpenTelemetrySpanExt;

    const PARENT: &str = "traceparent";
    const STATE: &str = "tracestate";

    /// Writes the span's context into the message, unless the user set one.
    pub(crate) fn inject(span: &Span, message: &mut Message) {
        if span.is_disabled() || message.headers.get(PARENT).is_some() {
            return;
        }
        let context = span.context();
        let span = context.span();
        let context = span.span_context();
        if !context.is_valid() {
            return;
        }
        let (trace, id) = (context.trace_id(), context.span_id());
        let flags = context.trace_flags() & TraceFlags::SAMPLED;
        put(message, PARENT, format!("00-{trace:032x}-{id:016x}-{flags:02x}"));
        let state = context.trace_state().header();
        if !state.is_empty() && message.headers.get(STATE).is_none() {
            put(message, STATE, state);
        }
    }

    fn put(message: &mut Message, name: &'static str, value: String) {
        let name = HeaderName::new(name).expect("a header name of ours is one");
        message.headers.append(name, value);
    }

    /// Links the span to whoever published. A context that cannot be read is none.
    pub(crate) fn link(span: &Span, headers: &Headers) {
        if let Some(context) = remote(headers) {
            span.add_link(context);
        }
    }

    fn remote(headers: &Headers) -> Option<SpanContext> {
        let parent = std::str::from_utf8(headers.get(PARENT)?).ok()?;
        let mut parts = parent.split('-');
        let (version, trace, id, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        // A later version may have more parts; `ff` is none.
        let sound = version.len() == 2
            && version != "ff"
            && u8::from_str_radix(version, 16).is_ok()
            && (version != "00" || parts.next().is_none())
            && trace.len() == 32
            && id.len() == 16
            && flags.len() == 2;
        if !sound {
            return None;
        }
        let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?);
        let state = headers.get(STATE).and_then(|state| std::str::from_utf8(state).ok());
        let state = state.and_then(|state| state.parse::<TraceState>().ok()).unwrap_or_default();
        let context = SpanContext::new(
            TraceId::from_hex(trace).ok()?,
            SpanId::from_hex(id).ok()?,
            flags,
            true,
            state,
        );
        context.is_valid().then_some(context)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        fn headers(parent: &str) -> Headers {
            let mut headers = Headers::default();
            headers.append(HeaderName::new(PARENT).unwrap(), parent.to_owned());
            headers
        }

        #[test]
        fn a_context_is_read_or_is_none() {
            let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
            let context = remote(&headers(good)).unwrap();
            assert_eq!(context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
            assert!(context.is_sampled() && context.is_remote());
            for bad in [
                "",
                "00",
                "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
                "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
                "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
                "00-4bf92f3577b34da6a3ce929d0e0e47zz-00f067aa0ba902b7-01",
                "é0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            ] {
                assert!(remote(&headers(bad)).is_none(), "{bad}");
            }
        }
    }
}
