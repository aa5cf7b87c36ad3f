//! The example `worker` as a service, over the death of its server.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use longshore_core::{Message, MessageId};
use longshore_runtime::Client;
use longshore_testbed::Broker;
use tokio::time::sleep;

use crate::program::{PATIENCE, example, interrupt, tells};

/// The number in a line of the example that tells of a success.
fn billed(line: &str) -> Option<u64> {
    line.strip_prefix("billed order ")?.split(' ').next()?.parse().ok()
}

/// How often each order was billed, as printed so far.
fn count(text: &str) -> BTreeMap<u64, usize> {
    let mut orders = BTreeMap::new();
    for order in text.lines().filter_map(billed) {
        *orders.entry(order).or_default() += 1;
    }
    orders
}

async fn until(what: &str, printed: &Mutex<String>, holds: impl Fn(&str) -> bool) {
    let begun = Instant::now();
    while !holds(&printed.lock().unwrap()) {
        assert!(begun.elapsed() < PATIENCE, "{what}:\n{}", printed.lock().unwrap());
        sleep(Duration::from_millis(10)).await;
    }
}

/// `client` is one of the test's own, at `server`. `orderly`: the server is first restarted in
/// order, because a kill soon after a declaration loses what was declared.
pub(crate) async fn a_worker_goes_on(
    feature: &str,
    server: &Broker,
    client: Client,
    orderly: bool,
) {
    const ORDERS: u64 = 400;
    let mut worker =
        example(feature, "worker", &[server.url()]).env("WORKER_LOG", "error").spawn().unwrap();
    let mut stdout = BufReader::new(worker.stdout.take().unwrap());
    let mut stderr = worker.stderr.take().unwrap();
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).unwrap();
        text
    });
    let printed = Arc::new(Mutex::new(String::new()));
    let reads = printed.clone();
    let reader = std::thread::spawn(move || {
        let mut line = String::new();
        while stdout.read_line(&mut line).unwrap() > 0 {
            reads.lock().unwrap().push_str(&std::mem::take(&mut line));
        }
    });
    // Its own ten orders.
    until("not ready", &printed, |text| text.contains("ready;") && count(text).len() == 10).await;

    let sender = client.sender("worker").await.unwrap();
    if orderly {
        server.restart().await.unwrap();
    }
    let sends = async {
        for order in 101..=100 + ORDERS {
            let id = MessageId::new(format!("order-{order}")).unwrap();
            let message = Message::new(format!("{{\"id\":{order}}}")).id(id);
            let begun = Instant::now();
            while sender.send(message.clone()).await.is_err() {
                assert!(begun.elapsed() < PATIENCE, "order {order} cannot be sent");
                sleep(Duration::from_millis(20)).await;
            }
        }
    };
    let kills = async {
        until("nothing is handled", &printed, |text| count(text).len() > 100).await;
        server.kill().await.unwrap();
        let before = count(&printed.lock().unwrap());
        assert!(before.len() as u64 <= ORDERS, "nearly all were handled before the kill");
        server.restart().await.unwrap();
        before
    };
    let ((), before) = tokio::join!(sends, kills);
    let all = |text: &str| count(text).len() as u64 == 10 + ORDERS;
    until("not all are handled", &printed, all).await;
    interrupt(worker.id());
    let status = worker.wait().unwrap();
    reader.join().unwrap();
    let (text, errors) = (printed.lock().unwrap().clone(), errors.join().unwrap());
    assert!(status.success(), "{text}\n{errors}");
    tells(&text, &["draining"]);

    // The server writes what is settled behind its answer, so a kill undoes its last moments: what was
    // billed before it may come again, once. All else that comes again is known as redelivered.
    let orders = count(&text);
    let most = orders.values().max().copied().unwrap_or_default();
    let twice = orders.iter().filter(|(order, times)| **times > 1 && !before.contains_key(order));
    let twice = twice.count();
    let tally = text.lines().last().unwrap();
    let told = |what: &str| {
        let part = tally.split(", ").find_map(|part| part.strip_suffix(what));
        part.map_or(0, |number| number.trim().parse::<usize>().unwrap())
    };
    assert_eq!(told("succeeded"), orders.values().sum::<usize>(), "{tally}");
    assert!(most <= 2, "one came {most} times: {tally}");
    assert!(twice <= told("redelivered"), "{twice} twice, unexplained: {tally}");
    assert_eq!(told("dead-lettered"), 0, "{tally}");
}
