//! A server that is out of memory.

use std::time::Duration;

use longshore_core::{Broker as _, ErrorKind, Outcome, Retryability, Settlement};

use crate::support::{Bench, ack, failed, is, many, next, server, settle};

/// Pitfall 28, and the row "out of memory inside a script": publishers hear of it, and whatever
/// makes room goes on.
#[tokio::test]
async fn publishers_wait_and_settlements_go_on() {
    let server = server().await;
    let bench = Bench::new(server.url()).await;
    let consumer = bench.consumer(bench.source()).await;
    let suspects = bench.consumer(bench.suspects()).await;
    for body in ["acked", "retried", "buried", "suspected"] {
        bench.publish(body).await.unwrap();
    }
    let held = many(&*consumer, 4).await;
    server.memory_alarm(true).await.unwrap();
    let refused = is(bench.publish("more").await, ErrorKind::Backpressure);
    assert_eq!(refused.outcome(), Some(Outcome::Refused));
    assert_eq!(refused.retryability(), Retryability::Transient);
    for received in held {
        let mut out = Vec::new();
        consumer.extend(&[received.token], Duration::from_secs(5), &mut out).await;
        out.remove(0).unwrap();
        let token = received.token;
        let order = match &received.body[..] {
            b"acked" => Settlement::Ack(token),
            b"retried" => {
                let after = Duration::from_millis(100);
                Settlement::Retry { token, after, record: failed(&received) }
            }
            b"buried" => Settlement::DeadLetter { token, letter: bench.letter(&received) },
            _ => Settlement::Suspect { token, record: failed(&received) },
        };
        settle(&*consumer, order).await.unwrap();
    }
    let again = next(&*consumer).await;
    assert_eq!((&again.body[..], again.attempt()), (&b"retried"[..], 2));
    ack(&*consumer, again.token).await.unwrap();
    let suspect = next(&*suspects).await;
    assert_eq!(suspect.body, "suspected");
    ack(&*suspects, suspect.token).await.unwrap();
    assert_eq!(bench.redis.stats(&bench.letters()).await.unwrap().ready, 1);
    server.memory_alarm(false).await.unwrap();
    bench.publish("more").await.unwrap();
    ack(&*consumer, next(&*consumer).await.token).await.unwrap();
}

/// Pitfall 28: a dead-letter queue whose key holds something else takes no message with it.
#[tokio::test]
async fn a_letter_that_cannot_be_written_leaves_the_message() {
    let server = server().await;
    let bench = Bench::new(server.url()).await;
    let consumer = bench.consumer(bench.source()).await;
    bench.publish("buried").await.unwrap();
    let held = next(&*consumer).await;
    assert_eq!(bench.number(&["LPUSH", "{orders}.billing.dlq", "x"]).await, 1);
    server.memory_alarm(true).await.unwrap();
    let letter = || Settlement::DeadLetter { token: held.token, letter: bench.letter(&held) };
    is(settle(&*consumer, letter()).await, ErrorKind::Config);
    server.memory_alarm(false).await.unwrap();
    is(settle(&*consumer, letter()).await, ErrorKind::Config);
    assert_eq!(bench.number(&["XLEN", "orders"]).await, 1);
    assert_eq!(bench.number(&["DEL", "{orders}.billing.dlq"]).await, 1);
    settle(&*consumer, letter()).await.unwrap();
    assert_eq!(bench.redis.stats(&bench.letters()).await.unwrap().ready, 1);
    assert_eq!(bench.number(&["XLEN", "orders"]).await, 0);
}
