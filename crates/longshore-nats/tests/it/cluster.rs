//! Three nodes: the leader of a stream and of its consumer dies, and work goes on.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use longshore_core::{Broker as _, Event, Message, MessageId, Received, Settlement};
use longshore_testbed::{Broker, Node, Options, Testbed};
use tokio::time::timeout;

use crate::support::{Bench, ack, failed, next, send, settle};

async fn cluster() -> Broker {
    let row = std::env::var("LONGSHORE_NATS").unwrap_or("nats".into());
    // The first start of three elects leaders, on a busy machine for long.
    let options = Options::default().nodes(3).ready_within(Duration::from_secs(60));
    Testbed::start(&row, options).await.unwrap()
}

async fn bench(cluster: &Broker) -> Bench {
    let url = format!("{}?replicas=3&publish_timeout=2s", cluster.url());
    let begun = Instant::now();
    loop {
        // Ready is said a moment before the group that keeps the streams has all of its members.
        let nats = longshore_nats::connect(&url, longshore_core::Setup::default()).await.unwrap();
        let group = crate::support::group("orders");
        let declared = nats.declare(&longshore_core::Topology::group(group)).await;
        match declared {
            Ok(()) => return Bench::new(&url).await,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(60), "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn node<'a>(cluster: &'a Broker, name: &str) -> &'a Node {
    cluster.nodes().iter().find(|node| node.name() == name).unwrap()
}

/// The node that leads the stream, or the group's consumer.
async fn leader(bench: &Bench, of_consumer: bool) -> String {
    let begun = Instant::now();
    loop {
        let mut found = None;
        if let Ok(mut stream) = bench.native().get_stream("orders").await {
            found = match of_consumer {
                true => stream.consumer_info("billing").await.ok().and_then(|it| it.cluster),
                false => stream.info().await.ok().and_then(|it| it.cluster.clone()),
            };
        }
        if let Some(leader) = found.and_then(|cluster| cluster.leader) {
            return leader;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "no leader");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn text(received: &Received) -> String {
    String::from_utf8(received.body.to_vec()).unwrap()
}

/// Both leaders die, one after the other, under a publisher that tries again with the same id.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_leader_loses_nothing_and_stores_nothing_twice() {
    const MESSAGES: usize = 300;
    let cluster = cluster().await;
    let bench = bench(&cluster).await;
    let publisher = bench.nats.publisher(&bench.topic).await.unwrap();
    let consumer = bench.consumer(bench.source()).await;
    let sends = async {
        let mut dead: Option<String> = None;
        for n in 0..MESSAGES {
            if n == MESSAGES / 3 || n == MESSAGES * 2 / 3 {
                // The one before is whole again: of three, one may be missing.
                if let Some(name) = dead.take() {
                    node(&cluster, &name).restart().await.unwrap();
                }
                let victim = leader(&bench, n > MESSAGES / 2).await;
                node(&cluster, &victim).kill().await.unwrap();
                dead = Some(victim);
            }
            let message = Message::new(n.to_string()).id(MessageId::new(format!("m{n}")).unwrap());
            let begun = Instant::now();
            while send(&*publisher, message.clone()).await.is_err() {
                assert!(begun.elapsed() < Duration::from_secs(30), "{n} cannot be published");
            }
        }
    };
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let reads = async {
        while seen.len() < MESSAGES {
            let mut out = Vec::new();
            let came = timeout(Duration::from_secs(40), consumer.receive(&mut out, 16)).await;
            came.expect("nothing came").unwrap();
            for event in out {
                let Event::Message(received) = event else { continue };
                // Where it is unknown whether it was settled, it may come again, and says so.
                let again = seen.get(&text(&received)).copied().unwrap_or_default();
                assert!(again == 0 || received.deliveries > 1, "{} twice", text(&received));
                *seen.entry(text(&received)).or_default() += 1;
                let _unknown = ack(&*consumer, received.token).await;
            }
        }
    };
    let all = async { tokio::join!(sends, reads) };
    timeout(Duration::from_secs(150), all).await.expect("it did not go on");
    assert_eq!(seen.len(), MESSAGES);
    let mut stream = bench.native().get_stream("orders").await.unwrap();
    assert_eq!(stream.info().await.unwrap().state.messages, MESSAGES as u64, "each stored once");
}

/// Delays and counts are on every node.
#[tokio::test(flavor = "multi_thread")]
async fn waiting_retries_survive_the_death_of_their_leader() {
    let gap = Duration::from_secs(9);
    let cluster = cluster().await;
    let bench = bench(&cluster).await;
    let consumer = bench.consumer(bench.source()).await;
    for n in 0..4 {
        bench.publish(&n.to_string()).await.unwrap();
    }
    let (mut ordered, mut orders) = (BTreeMap::new(), Vec::new());
    for _ in 0..4 {
        let received = next(&*consumer).await;
        let (token, record) = (received.token, failed(&received));
        orders.push(Settlement::Retry { token, after: gap, record });
        ordered.insert(text(&received), Instant::now());
    }
    // In one call: one burst, which the server has confirmed when it is answered. What waits for a
    // later burst while the leader dies comes back with its lease, and counts one return more.
    let mut out = Vec::new();
    consumer.settle(&orders, &mut out).await;
    out.into_iter().for_each(|outcome| outcome.unwrap());
    let victim = leader(&bench, true).await;
    node(&cluster, &victim).kill().await.unwrap();
    while !ordered.is_empty() {
        let received = next(&*consumer).await;
        let at = ordered.remove(&text(&received)).expect("each comes once");
        assert!(at.elapsed() >= gap, "early: {:?}", at.elapsed());
        assert_eq!((received.attempt(), received.unexplained()), (2, 0));
        let begun = Instant::now();
        while ack(&*consumer, received.token).await.is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "it cannot be settled");
        }
    }
}
