//! A server that forgets its scripts.

use std::time::Duration;

use longshore_core::Settlement;

use crate::support::{Bench, ack, command, failed, next, server, settle};

/// Pitfall 26.
#[tokio::test]
async fn a_flush_of_the_scripts_is_not_noticed() {
    let server = server().await;
    let bench = Bench::new(server.url()).await;
    let consumer = bench.consumer(bench.source()).await;
    for n in 0..5 {
        bench.publish(&n.to_string()).await.unwrap();
        let received = next(&*consumer).await;
        bench.ask(&command(&["SCRIPT", "FLUSH"])).await;
        let after = Duration::from_millis(20);
        let retry = Settlement::Retry { token: received.token, after, record: failed(&received) };
        settle(&*consumer, retry).await.unwrap();
        bench.ask(&command(&["SCRIPT", "FLUSH"])).await;
        let again = next(&*consumer).await;
        assert_eq!(again.attempt(), 2);
        bench.ask(&command(&["SCRIPT", "FLUSH"])).await;
        ack(&*consumer, again.token).await.unwrap();
    }
}
