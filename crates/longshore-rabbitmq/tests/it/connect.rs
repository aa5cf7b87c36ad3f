//! The connection: logins, virtual hosts, servers that are not there.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use longshore_core::{Broker as _, ErrorKind, Setup};
use longshore_rabbitmq::connect;

use crate::server::shared;
use crate::support::{client, is};

#[tokio::test]
async fn it_says_what_the_server_is() {
    let broker = shared().await;
    let rabbit = client(&broker, "").await;
    assert_eq!(rabbit.info().server, format!("RabbitMQ {}", broker.version()));
    rabbit.close().await.unwrap();
    rabbit.close().await.unwrap();
    is(rabbit.audit().await, ErrorKind::Closed);
}

#[tokio::test]
async fn refused_credentials_and_virtual_hosts_are_typed_and_final() {
    let broker = shared().await;
    let address = broker.address();
    let url = format!("amqp://guest:hunter2@{address}");
    let error = is(connect(&url, Setup::default()).await, ErrorKind::Unauthenticated);
    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    let url = format!("amqp://guest:guest@{address}/nowhere");
    is(connect(&url, Setup::default()).await, ErrorKind::Forbidden);
}
