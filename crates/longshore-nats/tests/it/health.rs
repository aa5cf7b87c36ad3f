//! What a service's probe sees of a server that dies.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use longshore_core::{Failure, Message, Setup};
use longshore_runtime::Client;
use longshore_runtime::observe::{Health, NotReady};

use crate::server::Server;

async fn until(client: &Client, what: &str, is: fn(&Health) -> bool) {
    let begun = Instant::now();
    while !is(&client.health()) {
        let waited = begun.elapsed();
        assert!(waited < Duration::from_secs(30), "not {what}: {}", client.health());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn readiness_goes_with_the_server_and_comes_back_with_it() {
    let mut server = Server::start().await;
    let setup = Setup::default();
    let nats = longshore_nats::connect(&server.url(), setup.clone()).await.unwrap();
    let client = Client::new(Arc::new(nats), setup);
    let handler = |_: u64| async { Ok::<(), Failure>(()) };
    let worker = client.worker("orders", "billing").json(handler).start().await.unwrap();
    until(&client, "ready", Health::ready).await;

    server.kill().await;
    until(&client, "detached", |health| matches!(health.reasons[..], [NotReady::Detached { .. }]))
        .await;
    assert!(client.health().live(), "a link that is tried again needs no new process");

    server.run().await;
    until(&client, "ready again", Health::ready).await;
    client.sender("orders").await.unwrap().send(Message::json(&7_u64).unwrap()).await.unwrap();
    worker.idle().await;
    assert_eq!(worker.stop().await.unwrap().succeeded, 1);
}
