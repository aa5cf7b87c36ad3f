//! What publishers and consumers of one connection share.

use std::time::Duration;

use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::{Context, message::PublishMessage};
use async_nats::{Client, HeaderMap, Subject};
use bytes::Bytes;
use longshore_core::{BrokerInfo, ErrorKind, Result, Setup};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::Config;
use crate::error;
use crate::link::{Concern, Link};
use crate::replies::{Reading, Replies};

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) context: Context,
    pub(crate) link: std::sync::Arc<Link>,
    pub(crate) replies: std::sync::Arc<Replies>,
    /// Ends with the connection.
    pub(crate) _reading: Reading,
    pub(crate) config: Config,
    pub(crate) setup: Setup,
    pub(crate) info: BrokerInfo,
}

impl Shared {
    pub(crate) fn deadline(&self) -> Duration {
        self.config.publish_timeout
    }

    /// Asks the JetStream API about `stream`.
    pub(crate) async fn api<T: DeserializeOwned>(
        &self,
        operation: &str,
        stream: &str,
        payload: &impl Serialize,
    ) -> Result<T> {
        let work = async {
            let answer: Response<T> =
                self.context.request(operation.to_owned(), payload).await.map_err(error::api)?;
            match answer {
                Response::Ok(answer) => Ok(answer),
                Response::Err { error } => Err(error::server(error)),
            }
        };
        self.link.bounded(self.deadline(), Concern::Api(stream), work).await
    }

    /// Publishes into a stream and waits for its confirmation.
    pub(crate) async fn store(
        &self,
        subject: &str,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<PublishAck> {
        let work = async {
            let message = PublishMessage::build().payload(payload).headers(headers);
            let sent = self.context.send_publish(Subject::from(subject), message).await;
            sent.map_err(error::publish)?.await.map_err(error::publish)
        };
        self.link.bounded(self.deadline(), Concern::Subject(subject), work).await
    }

    pub(crate) fn hit(&self, step: &'static str) {
        self.setup.probe.hit(step);
    }
}

/// Whether an error says that what was asked for is not there.
pub(crate) fn is_missing(error: &longshore_core::Error) -> bool {
    error.kind() == ErrorKind::NotFound
}
