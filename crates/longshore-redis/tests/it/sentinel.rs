//! A primary that is replaced by one of its replicas.

use std::collections::BTreeSet;
use std::time::Duration;

use longshore_core::{Broker as _, Replication};
use longshore_testbed::Options;

use crate::support::{Bench, ack, next, server_with};

/// Pitfall 30: what was confirmed and had reached a replica comes; nothing hangs.
#[tokio::test]
async fn a_failover_is_followed() {
    const EACH: usize = 50;
    let server = server_with(Options::default().sentinels()).await;
    // A replica has what is confirmed.
    let bench = Bench::new(&format!("{}&wait=1", server.url())).await;
    assert_eq!(bench.redis.info().capabilities.replication, Replication::Async);
    let consumer = bench.consumer_of(bench.source(), 8).await;
    for n in 0..EACH {
        bench.publish(&n.to_string()).await.unwrap();
    }
    server.nodes()[0].kill().await.unwrap();
    for n in EACH..2 * EACH {
        let mut tries = 0;
        while let Err(error) = bench.publish(&n.to_string()).await {
            tries += 1;
            assert!(tries < 30, "{error:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    let mut seen = BTreeSet::new();
    while seen.len() < 2 * EACH {
        let received = next(&*consumer).await;
        // What was held over the failover may be another's, or back.
        let _ = ack(&*consumer, received.token).await;
        seen.insert(received.body);
    }
}
