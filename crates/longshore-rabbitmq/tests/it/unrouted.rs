//! What has nowhere to go, and what of it comes back. Each test has a virtual host of its own.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::{Duration, Instant};

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeleteOptions};
use lapin::{BasicProperties, Channel, Confirmation};
use longshore_core::{Broker as _, Message, Setup, Source, Topology};
use longshore_rabbitmq::{RabbitMq, connect};
use longshore_testbed::Broker;

use crate::server::{control, shared};
use crate::support::{depth, eventually, group, send, take, topic};

async fn virtual_host(broker: &Broker) -> (RabbitMq, Channel) {
    let name = topic().to_string();
    control(broker, &["add_vhost", &name]).await;
    control(broker, &["set_permissions", "-p", &name, "guest", ".*", ".*", ".*"]).await;
    let url = format!("{}/{name}", broker.url());
    let properties = lapin::ConnectionProperties::default();
    let connection = lapin::Connection::connect(&url, properties).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    (connect(&url, Setup::default()).await.unwrap(), channel)
}

/// Sends a copy through the levels as a retry would: one that waits `units` tenths of a second.
async fn delayed(channel: &Channel, units: u32, queue: &str, body: &str) {
    let bits: String = (0..23).rev().map(|level| format!("{}.", units >> level & 1)).collect();
    let key = format!("{bits}{}", queue.replace('.', "="));
    let level = format!("longshore.delay.{}", units.ilog2());
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let properties = BasicProperties::default().with_delivery_mode(2).with_message_id("m".into());
    let publish = channel.basic_publish(
        level.as_str().into(),
        key.as_str().into(),
        options,
        body.as_bytes(),
        properties,
    );
    assert_eq!(publish.await.unwrap().await.unwrap(), Confirmation::Ack(None));
}

#[tokio::test]
async fn a_copy_comes_out_of_the_levels_when_it_is_due() {
    let broker = shared().await;
    let (rabbit, channel) = virtual_host(&broker).await;
    let topic = topic();
    rabbit.declare(&Topology::group(group(&topic, "billing"))).await.unwrap();
    let queue = format!("{topic}.billing");
    let begun = Instant::now();
    // Through three levels, with a shorter one behind it.
    delayed(&channel, 0b1011, &queue, "late").await;
    delayed(&channel, 1, &queue, "soon").await;
    assert_eq!(take(&channel, &queue).await.data, b"soon");
    assert!(begun.elapsed() < Duration::from_millis(1_100), "held up for {:?}", begun.elapsed());
    let late = take(&channel, &queue).await;
    assert_eq!(late.data, b"late");
    assert!(begun.elapsed() >= Duration::from_millis(1_100), "early: {:?}", begun.elapsed());
    // Straight from the last level, by its bits.
    assert_eq!(late.exchange.as_str(), "longshore.deliver");
}

/// Pitfall 12. More than the level's own window of retries of a deleted group: others stay on time,
/// these are parked, and come back when their queue is declared.
#[tokio::test]
async fn retries_of_a_deleted_group_hold_up_nobody_and_come_back() {
    const MANY: u32 = 80;
    let broker = shared().await;
    let (rabbit, channel) = virtual_host(&broker).await;
    let topic = topic();
    for name in ["gone", "alive"] {
        rabbit.declare(&Topology::group(group(&topic, name))).await.unwrap();
    }
    let (gone, alive) = (format!("{topic}.gone"), format!("{topic}.alive"));
    for n in 0..MANY {
        delayed(&channel, 0b101, &gone, &n.to_string()).await;
    }
    channel.queue_delete(gone.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    eventually("the parked retries", || async {
        depth(&channel, "longshore.unrouted").await == MANY
    })
    .await;
    let living = Source::Group { topic: topic.clone(), group: "alive".try_into().unwrap() };
    assert_eq!(rabbit.stats(&living).await.unwrap().unrouted, u64::from(MANY));
    let begun = Instant::now();
    delayed(&channel, 0b101, &alive, "on time").await;
    assert_eq!(take(&channel, &alive).await.data, b"on time");
    assert!(begun.elapsed() < Duration::from_secs(5), "held up for {:?}", begun.elapsed());

    rabbit.declare(&Topology::group(group(&topic, "gone"))).await.unwrap();
    let mut back = Vec::new();
    for _ in 0..MANY {
        let got = take(&channel, &gone).await;
        let headers = got.properties.headers();
        let servers = headers.as_ref().is_some_and(|it| it.contains_key("x-death"));
        assert!(!servers, "a copy carries the server's own headers: {headers:?}");
        assert_eq!(got.properties.message_id().as_ref().unwrap().as_str(), "m");
        back.push(String::from_utf8(got.data).unwrap().parse::<u32>().unwrap());
    }
    back.sort_unstable();
    assert_eq!(back, (0..MANY).collect::<Vec<_>>());
    assert_eq!(depth(&channel, "longshore.unrouted").await, 0);
}

/// What is parked for others stays, also where there is more of it than is held at a time.
#[tokio::test]
async fn only_what_is_addressed_to_a_queue_comes_back_and_all_of_it() {
    const OTHERS: u32 = 400;
    let broker = shared().await;
    let (rabbit, channel) = virtual_host(&broker).await;
    let (lonely, topic) = (topic(), topic());
    rabbit.declare(&Topology::topic(lonely.clone())).await.unwrap();
    rabbit.declare(&Topology::group(group(&topic, "billing"))).await.unwrap();
    let publisher = rabbit.publisher(&lonely).await.unwrap();
    let unheard = (0..OTHERS - 1).map(|n| Message::new(n.to_string()));
    for outcome in publisher.publish(&mut unheard.collect()).await.unwrap().await {
        outcome.unwrap();
    }
    delayed(&channel, 1, &format!("{topic}.other"), "for a queue that is not declared").await;
    // One whose name ends as the other's does.
    delayed(&channel, 1, &format!("{topic}.late"), "mine").await;
    eventually("all that is parked", || async {
        depth(&channel, "longshore.unrouted").await == OTHERS + 1
    })
    .await;
    send(&*publisher, Message::new("the last")).await.unwrap();
    rabbit.declare(&Topology::group(group(&topic, "late"))).await.unwrap();
    assert_eq!(take(&channel, &format!("{topic}.late")).await.data, b"mine");
    eventually("what is for others", || async {
        depth(&channel, "longshore.unrouted").await == OTHERS + 1
    })
    .await;
    rabbit.declare(&Topology::group(group(&topic, "other"))).await.unwrap();
    let other = take(&channel, &format!("{topic}.other")).await;
    assert_eq!(other.data, b"for a queue that is not declared");
    // Nothing of the lonely topic was lost on the way.
    let mut left = std::collections::BTreeSet::new();
    for _ in 0..OTHERS {
        let got = take(&channel, "longshore.unrouted").await;
        assert_eq!(got.routing_key.as_str(), lonely.as_str());
        left.insert(got.data);
    }
    assert_eq!(left.len() as u32, OTHERS);
}
