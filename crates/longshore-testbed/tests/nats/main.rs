//! Both versions of NATS, for real: fetched, started, broken, and gone.

mod client;
#[path = "../kit/mod.rs"]
mod kit;

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Duration;

use client::{greeting, ignored_by, read_data, signal, write_data, write_replicated};
use kit::{eventually, ground, hold};
use longshore_testbed::{Error, Identity, Options, Progress, Testbed};

const BOTH: [&str; 2] = ["nats@2.15", "nats@2.10"];

#[tokio::test]
async fn both_versions_start_side_by_side_and_greet() {
    // Elsewhere, a test beside this one might be given the folder that is looked for below.
    let testbed = Testbed::workspace().run_in(ground("both"));
    let started = testbed.brokers(&BOTH, &Options::default(), &Progress::shown()).await;
    let brokers: Vec<_> = started.into_iter().map(Result::unwrap).collect();
    for (broker, name) in brokers.iter().zip(BOTH) {
        let (_, version) = name.split_once('@').unwrap();
        let info = greeting(broker).await;
        assert!(info["version"].as_str().unwrap().starts_with(&format!("{version}.")), "{info}");
        assert_eq!(info["version"], broker.version());
        assert_eq!(info["jetstream"], true);
        assert_eq!(info["port"], broker.address().port());
        assert_eq!(broker.url(), format!("nats://{}", broker.address()));
        assert!(broker.ports().all(|port| port < 32_768));
    }
    let records = testbed.running().await.unwrap();
    for broker in &brokers {
        let record = records.iter().find(|record| record.url == broker.url()).unwrap();
        assert_eq!(record.pid(), broker.nodes()[0].pid());
        assert_eq!(record.owner.unwrap().pid, std::process::id());
    }
    let left: Vec<_> = brokers
        .iter()
        .map(|broker| (Identity::of(broker.nodes()[0].pid().unwrap()).unwrap(), broker.folder()))
        .collect();
    drop(brokers);
    for (process, folder) in left {
        assert!(!process.is_alive() && !folder.exists(), "{}", folder.display());
    }
}

#[tokio::test]
async fn a_killed_broker_comes_back_with_its_data_and_port() {
    for name in BOTH {
        let broker = Testbed::start(name, Options::default()).await.unwrap();
        write_data(&broker).await;
        let (address, before) = (broker.address(), broker.nodes()[0].pid().unwrap());
        let process = Identity::of(before).unwrap();

        broker.kill().await.unwrap();
        assert!(!process.is_alive());
        assert_eq!(broker.nodes()[0].pid(), None);
        let refused = tokio::net::TcpStream::connect(address).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        assert!(matches!(broker.pause().await, Err(Error::NotRunning { .. })));

        broker.restart().await.unwrap();
        assert_eq!(broker.address(), address);
        assert_ne!(broker.nodes()[0].pid(), Some(before));
        assert_eq!(read_data(&broker).await, 1, "{name} kept its message");

        broker.restart().await.unwrap();
        assert_eq!(read_data(&broker).await, 1, "{name} kept it through an orderly restart");
    }
}

#[tokio::test]
async fn three_nodes_are_one_cluster_that_outlives_one_of_them() {
    for name in BOTH {
        let broker = Testbed::start(name, Options::default().nodes(3)).await.unwrap();
        assert_eq!((broker.nodes().len(), broker.url().matches("127.0.0.1").count()), (3, 3));
        write_replicated(&broker).await;
        broker.nodes()[2].kill().await.unwrap();
        assert_eq!(broker.nodes()[2].pid(), None);
        assert!(broker.nodes()[0].pid().is_some());
        broker.nodes()[2].restart().await.unwrap();
        assert_eq!(read_data(&broker).await, 1, "{name} kept its message");
    }
}

#[tokio::test]
async fn restarts_at_the_same_time_end_in_one_server() {
    let broker = Testbed::start("nats", Options::default()).await.unwrap();
    let (first, second) = tokio::join!(broker.restart(), broker.restart());
    first.unwrap();
    second.unwrap();
    greeting(&broker).await;
}

#[tokio::test]
async fn a_paused_broker_answers_nothing_until_it_goes_on() {
    let broker = Testbed::start("nats", Options::default()).await.unwrap();
    greeting(&broker).await;
    broker.pause().await.unwrap();
    assert!(ignored_by(&broker, Duration::from_millis(500)).await);
    broker.resume().await.unwrap();
    greeting(&broker).await;
    // One that is paused can be stopped and killed all the same.
    broker.pause().await.unwrap();
    broker.stop().await.unwrap();
    broker.restart().await.unwrap();
    broker.pause().await.unwrap();
    broker.kill().await.unwrap();
}

#[tokio::test]
async fn extra_configuration_and_files_reach_the_server() {
    let users = "authorization { users: [ { user: ann, password: secret } ] }\n";
    let options = Options::default()
        .file("users.conf", users)
        .config("include 'users.conf'\nmax_payload: 4096\njetstream: false");
    let broker = Testbed::start("nats@2.15", options).await.unwrap();
    let info = greeting(&broker).await;
    assert_eq!(info["max_payload"], 4096);
    assert_eq!(info["auth_required"], true);
    assert_ne!(info["jetstream"], true);

    let limits = "jetstream { store_dir: \"@DATA@\", max_file: 1M }";
    let broker = Testbed::start("nats@2.10", Options::default().config(limits)).await.unwrap();
    write_data(&broker).await;
    assert!(broker.folder().join("n1/data/jetstream").is_dir());
}

#[tokio::test]
async fn a_server_that_ends_or_is_late_shows_its_last_lines() {
    let died = Testbed::start("nats", Options::default().config("max_payload: nonsense")).await;
    let Err(Error::Died { log, .. }) = died else { panic!("{died:?}") };
    // The snippet stands behind the template's four lines.
    assert!(log.contains("nats.conf:5"), "{log}");

    let folder = ground("late");
    let server = folder.join("server");
    std::fs::write(
        &server,
        "#!/bin/sh\necho still thinking\nread -r _ < /dev/null\nexec sleep 60\n",
    )
    .unwrap();
    std::fs::set_permissions(&server, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let options = Options::default().server(&server).ready_within(Duration::from_millis(300));
    let late = Testbed::start("nats", options).await;
    let Err(Error::Late { log, .. }) = late else { panic!("{late:?}") };
    assert_eq!(log, "still thinking");

    let gone = Testbed::start("nats", Options::default().server(folder.join("none"))).await;
    let Err(Error::Died { log, .. }) = gone else { panic!("{gone:?}") };
    assert!(log.contains("not found"), "{log}");
}

#[tokio::test]
async fn a_broker_dies_with_the_process_that_holds_it() {
    let run = ground("crash");
    // A paused server takes no signal but the one that matters.
    for paused in [true, false] {
        let (mut holder, record) = hold("nats@2.15", &run);
        let server = Identity::of(record["pid"].as_u64().unwrap() as u32).unwrap();
        if paused {
            signal(server, rustix::process::Signal::STOP);
        }
        holder.kill().unwrap();
        assert_eq!(holder.wait().unwrap().signal(), Some(9));
        eventually("the server is gone", || !server.is_alive()).await;

        // Its folder is stale now, and the next look removes it.
        let folder = Path::new(record["folder"].as_str().unwrap());
        assert!(folder.exists());
        let running = Testbed::workspace().run_in(&run).running().await.unwrap();
        assert!(running.is_empty() && !folder.exists());
    }
}

#[tokio::test]
async fn a_broker_that_was_left_runs_until_down() {
    let testbed = Testbed::workspace().run_in(ground("left"));
    let held = testbed.broker("nats", Options::default(), &Progress::silent()).await.unwrap();
    let left = testbed.broker("nats", Options::default(), &Progress::silent()).await.unwrap();
    let record = left.leave_running().unwrap();
    let server = record.nodes[0].process;
    assert!(server.is_alive());
    assert!(testbed.running().await.unwrap().contains(&record));

    assert!(testbed.down(&["mqtt".to_owned()]).await.is_err());
    assert_eq!(testbed.down(&["nats@2.10".to_owned()]).await.unwrap(), []);
    assert!(server.is_alive());
    assert_eq!(testbed.down(&[]).await.unwrap(), std::slice::from_ref(&record));
    assert!(!server.is_alive() && !record.folder.exists());
    greeting(&held).await;
}

#[tokio::test]
async fn stale_records_are_known_by_the_start_time_and_removed() {
    let run = ground("stale");
    let testbed = Testbed::workspace().run_in(&run);
    let broker = testbed.broker("nats", Options::default(), &Progress::silent()).await.unwrap();
    let record = broker.leave_running().unwrap();
    // The number is alive, the process is another: this must neither count nor be killed.
    let me = Identity::of(std::process::id()).unwrap();
    let mut stale = record.clone();
    stale.folder = run.join("nats-2.15-9");
    stale.nodes[0].process = Identity { start: me.start + 1, ..me };
    std::fs::create_dir(&stale.folder).unwrap();
    let text = serde_json::to_vec(&stale).unwrap();
    std::fs::write(stale.folder.join("state.json"), text).unwrap();
    // And one whose maker was killed before it wrote a record.
    std::fs::create_dir(run.join("nats-2.15-8")).unwrap();

    assert_eq!(testbed.running().await.unwrap(), std::slice::from_ref(&record));
    assert!(!stale.folder.exists() && !run.join("nats-2.15-8").exists());

    signal(record.nodes[0].process, rustix::process::Signal::KILL);
    eventually("the killed one is known as stale", || !record.nodes[0].process.is_alive()).await;
    assert_eq!(testbed.running().await.unwrap(), []);
    assert!(!record.folder.exists());
}

#[test]
fn a_missing_tool_is_named_with_the_way_to_get_it() {
    for (name, tool) in [("nats@2.15", "python3"), ("nats@2.10", "apt-get")] {
        let folder = ground(&format!("missing-{tool}"));
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_hold"))
            .args([name.as_ref(), "--root".as_ref(), folder.as_os_str()])
            .env("PATH", &folder)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(&format!(": fetching {name} needs {tool}: ")), "{said}");
    }
}
