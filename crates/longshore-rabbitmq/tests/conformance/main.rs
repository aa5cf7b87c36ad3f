//! The RabbitMQ backend's side of the conformance suite, on every server version that is promised.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod servers;
mod way;

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use lapin::options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation};
use longshore_conformance::{Access, Act, Foreign, Harness, Target};
use longshore_core::{Broker, Error, ErrorKind, InstanceId, Result, Setup, TopicName};
use longshore_rabbitmq::Connections;
use tokio::task::JoinHandle;

use crate::servers::Servers;
use crate::way::Way;

/// Where messages lie that no queue of a group took.
const UNROUTED: &str = "longshore.unrouted";

fn main() -> ExitCode {
    longshore_conformance::main(RabbitHarness::on)
}

#[derive(Debug)]
struct RabbitHarness {
    servers: Servers,
    ways: Mutex<HashMap<InstanceId, Vec<JoinHandle<()>>>>,
}

impl RabbitHarness {
    fn on(target: Target) -> Result<Self> {
        Ok(Self { servers: Servers::open(target)?, ways: Mutex::default() })
    }
}

fn wrong(what: &'static str) -> Error {
    Error::new(ErrorKind::Unexpected, what)
}

/// What the client library refused.
fn refused(what: &'static str) -> impl FnOnce(lapin::Error) -> Error {
    move |native| wrong(what).with_source(native)
}

/// A channel as another program would have it.
async fn channel(broker: &dyn Broker) -> Result<Channel> {
    let native: &Connections =
        broker.native().downcast_ref().ok_or_else(|| wrong("the native type differs"))?;
    let connection = native.outgoing().ok_or_else(|| wrong("the connection is down"))?;
    connection.create_channel().await.map_err(refused("no channel"))
}

#[async_trait::async_trait]
impl Harness for RabbitHarness {
    fn name(&self) -> &'static str {
        "rabbitmq"
    }

    fn servers(&self) -> Vec<String> {
        self.servers.names()
    }

    async fn connect(&self, server: &str, setup: Setup) -> Result<Arc<dyn Broker>> {
        let missing = || Error::config(format!("no server is named {server}"));
        let url = self.servers.url(server, Access::Full).ok_or_else(missing)?;
        // What is wrong with a URL is the backend's to say.
        let Some(way) = Way::to(&url) else {
            return Ok(Arc::new(longshore_rabbitmq::connect(&url, setup).await?));
        };
        let no_way =
            |error| Error::new(ErrorKind::Unavailable, "no way to the server").with_source(error);
        let (url, task) = way.open().await.map_err(no_way)?;
        self.ways.lock().unwrap().entry(setup.instance.clone()).or_default().push(task);
        Ok(Arc::new(longshore_rabbitmq::connect(&url, setup).await?))
    }

    fn url(&self, server: &str, access: Access) -> Option<String> {
        self.servers.url(server, access)
    }

    fn open(
        &self,
        url: String,
        setup: Setup,
    ) -> Option<BoxFuture<'static, Result<Arc<dyn Broker>>>> {
        let opened = async move { longshore_rabbitmq::connect(&url, setup).await };
        Some(opened.map(|rabbit| Ok(Arc::new(rabbit?) as Arc<dyn Broker>)).boxed())
    }

    fn server<'a>(&'a self, server: &'a str, act: Act) -> Option<BoxFuture<'a, Result<()>>> {
        matches!(self.servers, Servers::Own { .. }).then(|| {
            let done = self.servers.act(server, act);
            done.map(|done| done.unwrap_or_else(|| Err(Error::config("no such server")))).boxed()
        })
    }

    /// Those of `topic` among all that are parked, since all topics share the place. They are looked
    /// at without being settled, and go back with the channel.
    fn parked<'a>(
        &'a self,
        broker: &'a dyn Broker,
        topic: &'a TopicName,
    ) -> Option<BoxFuture<'a, Result<u64>>> {
        let counted = async move {
            let channel = channel(broker).await?;
            let mut count = 0;
            loop {
                let next = channel.basic_get(UNROUTED.into(), BasicGetOptions::default()).await;
                let Some(message) = next.map_err(refused("what is parked cannot be read"))? else {
                    break;
                };
                count += u64::from(message.exchange.as_str() == topic.as_str());
            }
            channel.close(200, "counted".into()).await.map_err(refused("not given back"))?;
            Ok(count)
        };
        Some(counted.boxed())
    }

    fn crash<'a>(
        &'a self,
        _: &'a dyn Broker,
        instance: &'a InstanceId,
    ) -> Option<BoxFuture<'a, Result<()>>> {
        // Nothing is cut where nothing stands between.
        let ways = self.ways.lock().unwrap().remove(instance)?;
        ways.iter().for_each(JoinHandle::abort);
        Some(async { Ok(()) }.boxed())
    }

    fn inject<'a>(
        &'a self,
        broker: &'a dyn Broker,
        Foreign { topic, body, headers }: Foreign,
    ) -> Option<BoxFuture<'a, Result<()>>> {
        let sent = async move {
            let channel = channel(broker).await?;
            let confirm = ConfirmSelectOptions::default();
            channel.confirm_select(confirm).await.map_err(refused("no confirmations"))?;
            let mut table = FieldTable::default();
            for (name, value) in headers {
                let name = ShortString::try_new(name).map_err(|_| wrong("not a header name"))?;
                // What most clients send: a string of any bytes.
                table.insert(name, AMQPValue::LongString(value.to_vec().into()));
            }
            let properties = BasicProperties::default().with_headers(table).with_delivery_mode(2);
            let exchange = ShortString::try_new(topic.as_str()).map_err(|_| wrong("no name"))?;
            let options = BasicPublishOptions::default();
            let sent = channel.basic_publish(exchange, "".into(), options, &body, properties).await;
            match sent.map_err(refused("not sent"))?.await.map_err(refused("not stored"))? {
                Confirmation::Ack(None) => Ok(()),
                _ => Err(wrong("not stored")),
            }
        };
        Some(sent.boxed())
    }
}
