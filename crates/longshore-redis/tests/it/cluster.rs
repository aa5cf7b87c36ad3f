//! A cluster: the node that has a topic's slot, and a slot that moves.

use std::collections::BTreeSet;
use std::time::Duration;

use longshore_core::{Broker as _, ErrorKind, Record, Settlement, Setup};
use longshore_redis::connect;
use longshore_testbed::{Broker, Options};

use crate::support::{Bench, ack, failed, group, is, next, server_with, settle};

async fn cluster() -> Broker {
    server_with(Options::default().nodes(3)).await
}

#[tokio::test]
async fn each_topic_is_found_on_its_own_node() {
    let server = cluster().await;
    // Of a node alone, without a word of the cluster.
    let alone = format!("redis://{}", server.address());
    is(connect(&alone, Setup::default()).await, ErrorKind::Config);
    let bench = Bench::new(server.url()).await;
    // These are in the slots of three nodes.
    for topic in ["orders", "a", "hello"] {
        let wanted = group(topic);
        let bench = Bench { topic: wanted.topic.clone(), ..clone(&bench) };
        bench.redis.declare(&longshore_core::Topology::group(wanted)).await.unwrap();
        let consumer = bench.consumer(bench.source()).await;
        bench.publish("m").await.unwrap();
        let received = next(&*consumer).await;
        let after = Duration::from_millis(50);
        let record = failed(&received);
        settle(&*consumer, Settlement::Retry { token: received.token, after, record })
            .await
            .unwrap();
        let again = next(&*consumer).await;
        let letter = Settlement::DeadLetter { token: again.token, letter: bench.letter(&again) };
        settle(&*consumer, letter).await.unwrap();
        let queue = bench.consumer(bench.letters()).await;
        let dead = next(&*queue).await;
        let record = Box::new(Record { redrives: 1, ..Record::default() });
        settle(&*queue, Settlement::Redrive { token: dead.token, record }).await.unwrap();
        ack(&*consumer, next(&*consumer).await.token).await.unwrap();
    }
}

fn clone(bench: &Bench) -> Bench {
    let Bench { redis, topic, group } = bench;
    Bench { redis: redis.clone(), topic: topic.clone(), group: group.clone() }
}

/// Pitfall 29: a slot moves under load: nothing is lost.
#[tokio::test]
async fn a_slot_that_moves_loses_nothing() {
    const MESSAGES: usize = 300;
    let server = cluster().await;
    let bench = Bench::new(&format!("{}&publish_timeout=2s", server.url())).await;
    let consumer = bench.consumer_of(bench.source(), 64).await;
    let publisher = clone(&bench);
    let publishing = tokio::spawn(async move {
        for n in 0..MESSAGES {
            let mut tries = 0;
            while let Err(error) = publisher.publish(&n.to_string()).await {
                tries += 1;
                assert!(tries < 200, "{error:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    });
    let moving = move_slot(&server, "orders");
    let mut seen = BTreeSet::new();
    let reading = async {
        while seen.len() < MESSAGES {
            let received = next(&*consumer).await;
            // While the slot moves, a settlement may have to be tried again.
            let mut tries = 0;
            while let Err(error) = ack(&*consumer, received.token).await {
                if error.kind() == ErrorKind::LeaseLost {
                    break;
                }
                tries += 1;
                assert!(tries < 200, "{error:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            seen.insert(received.body);
        }
    };
    tokio::join!(moving, reading);
    publishing.await.unwrap();
}

/// From its node to the next, key by key, as an operator's tool does.
async fn move_slot(server: &Broker, key: &str) {
    let nodes = server.nodes();
    let slot = nodes[0].control(&["cluster", "keyslot", key]).await.unwrap();
    let number: usize = slot.parse().unwrap();
    let from = number * nodes.len() / 16_384;
    let (from, to) = (&nodes[from], &nodes[(from + 1) % nodes.len()]);
    let from_id = from.control(&["cluster", "myid"]).await.unwrap();
    let to_id = to.control(&["cluster", "myid"]).await.unwrap();
    to.control(&["cluster", "setslot", &slot, "importing", &from_id]).await.unwrap();
    from.control(&["cluster", "setslot", &slot, "migrating", &to_id]).await.unwrap();
    let port = to.port("redis").unwrap().to_string();
    loop {
        let keys = from.control(&["cluster", "getkeysinslot", &slot, "10"]).await.unwrap();
        let keys: Vec<_> = keys.lines().filter(|key| !key.is_empty()).collect();
        if keys.is_empty() {
            break;
        }
        for key in keys {
            // For a moment the keys are on two nodes.
            from.control(&["migrate", "127.0.0.1", &port, key, "0", "5000"]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    for node in [to, from].into_iter().chain(nodes) {
        node.control(&["cluster", "setslot", &slot, "node", &to_id]).await.unwrap();
    }
}
