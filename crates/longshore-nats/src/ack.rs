//! Settlements on their way to the server.

use std::time::Duration;

use async_nats::Subject;
use async_nats::client::Request;
use bytes::Bytes;
use longshore_core::Result;

use crate::error;
use crate::link::Concern;
use crate::shared::Shared;

/// What the server is told about one delivery.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    Ack,
    Nak(Duration),
    Extend,
}

impl Order {
    fn payload(self) -> Bytes {
        match self {
            Self::Ack => Bytes::from_static(b"+ACK"),
            Self::Extend => Bytes::from_static(b"+WPI"),
            Self::Nak(Duration::ZERO) => Bytes::from_static(b"-NAK"),
            Self::Nak(delay) => {
                // Thirty years; the server counts nanoseconds in an i64.
                let delay = delay.min(Duration::from_secs(86_400 * 365 * 30));
                Bytes::from(format!("-NAK {{\"delay\":{}}}", delay.as_nanos()))
            }
        }
    }
}

/// Sends `orders` and waits for the confirmation of all.
///
/// They are plain messages but for the last, which is a request: the server handles one
/// connection's orders for a consumer in their order, so its answer confirms those before. A
/// request each would halve the throughput.
///
/// # Errors
/// All of them are unknown then: silence, or nobody listens because the consumer is gone.
pub(crate) async fn send(shared: &Shared, mut orders: Vec<(Subject, Order)>) -> Result<()> {
    let Some((last, order)) = orders.pop() else { return Ok(()) };
    let concern = Concern::Subject(&last);
    let work = async {
        for (reply, order) in orders {
            let sent = shared.client.publish(reply, order.payload()).await;
            sent.map_err(|native| error::closed("connection").with_source(native))?;
        }
        let request = Request::new().payload(order.payload());
        let answer = shared.client.send_request(last.clone(), request).await;
        answer.map(drop).map_err(error::request)
    };
    shared.link.bounded(shared.deadline(), concern, work).await
}
