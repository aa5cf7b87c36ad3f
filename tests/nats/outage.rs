//! The example `worker` as a service, over the death of its server.

use std::sync::Arc;

use longshore_core::Setup;
use longshore_runtime::Client;

use crate::server;
use crate::worker::a_worker_goes_on;

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_goes_on_after_its_server_was_killed_in_the_middle() {
    let (server, setup) = (server().await, Setup::default());
    let url = format!("{}?publish_timeout=2s", server.url());
    let broker = longshore_nats::connect(&url, setup.clone()).await.unwrap();
    a_worker_goes_on("nats", &server, Client::new(Arc::new(broker), setup), false).await;
}
