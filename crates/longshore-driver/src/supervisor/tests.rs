use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use longshore_core::ErrorKind;

use super::*;

/// What the broker does, attempt by attempt; after the last it holds for ever.
#[derive(Clone, Copy)]
enum Play {
    Refuse(ErrorKind),
    HoldThenLose(Duration),
    Finish,
}

struct Script {
    plays: VecDeque<Play>,
    log: Arc<Mutex<Vec<(u32, Instant)>>>,
}

type Log = Arc<Mutex<Vec<(u32, Instant)>>>;

fn script(plays: impl IntoIterator<Item = Play>) -> (Script, Log) {
    let log = Log::default();
    (Script { plays: plays.into_iter().collect(), log: log.clone() }, log)
}

fn gaps(log: &Log) -> Vec<Duration> {
    let log = log.lock().unwrap();
    log.windows(2).map(|pair| pair[1].1 - pair[0].1).collect()
}

impl Connect for Script {
    type Session = Option<Play>;

    async fn connect(&mut self, epoch: u32) -> Result<Self::Session> {
        self.log.lock().unwrap().push((epoch, Instant::now()));
        match self.plays.pop_front() {
            Some(Play::Refuse(kind)) => Err(Error::new(kind, "refused")),
            play => Ok(play),
        }
    }

    async fn serve(&mut self, session: Self::Session) -> Result<()> {
        match session {
            Some(Play::HoldThenLose(time)) => {
                sleep(time).await;
                Err(Error::new(ErrorKind::Unavailable, "lost"))
            }
            Some(_) => Ok(()),
            None => std::future::pending().await,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn delays_grow_to_the_cap_with_jitter_and_the_epoch_rises() {
    let plays = std::iter::repeat_n(Play::Refuse(ErrorKind::Unavailable), 15);
    let (script, log) = script(plays.chain([Play::Finish]));
    let (supervisor, handle) = Supervisor::new(BackoffConfig::default());
    supervisor.run(script).await.unwrap();
    let mut least = Duration::from_millis(100);
    let gaps = gaps(&log);
    for gap in &gaps {
        // The paused clock ticks in milliseconds.
        assert!(*gap >= least && *gap <= least.mul_f64(1.25) + Duration::from_millis(2), "{gap:?}");
        least = (least * 2).min(Duration::from_secs(30));
    }
    assert_eq!(gaps.len(), 15);
    let capped: std::collections::HashSet<_> = gaps[9..].iter().collect();
    assert!(capped.len() > 1, "no two clients in step: {gaps:?}");
    let epochs: Vec<_> = log.lock().unwrap().iter().map(|(epoch, _)| *epoch).collect();
    assert_eq!(epochs, (1..=16).collect::<Vec<_>>());
    assert!(matches!(handle.state(), State::Ended { why: None }));
}

#[tokio::test(start_paused = true)]
async fn only_a_connection_that_held_resets_the_delay() {
    let brief = Play::HoldThenLose(Duration::from_secs(1));
    let steady = Play::HoldThenLose(Duration::from_secs(60));
    let (script, log) = script([brief, brief, brief, steady, Play::Finish]);
    let (supervisor, _handle) = Supervisor::new(BackoffConfig::default());
    supervisor.run(script).await.unwrap();
    let held = [1, 1, 1, 60].map(Duration::from_secs);
    let waits: Vec<_> = gaps(&log).iter().zip(held).map(|(gap, held)| *gap - held).collect();
    for (wait, least) in waits.iter().zip([100, 200, 400, 100].map(Duration::from_millis)) {
        assert!(*wait >= least && *wait <= least.mul_f64(1.25) + Duration::from_millis(2));
    }
}

#[tokio::test(start_paused = true)]
async fn refused_credentials_end_it_at_once() {
    for kind in [ErrorKind::Unauthenticated, ErrorKind::Forbidden, ErrorKind::Config] {
        let lost = Play::HoldThenLose(Duration::from_secs(1));
        let (script, log) = script([lost, Play::Refuse(kind), Play::Finish]);
        let (supervisor, handle) = Supervisor::new(BackoffConfig::default());
        assert_eq!(supervisor.run(script).await.unwrap_err().kind(), kind);
        assert_eq!(log.lock().unwrap().len(), 2, "no storm");
        assert_eq!(handle.up().await.unwrap_err().kind(), kind);
    }
}

#[tokio::test(start_paused = true)]
async fn the_state_is_watched_from_down_to_up() {
    let (script, _log) = script([Play::Refuse(ErrorKind::Timeout)]);
    let (supervisor, handle) = Supervisor::new(BackoffConfig::default());
    let mut watched = handle.watch();
    assert!(matches!(*watched.borrow_and_update(), State::Connecting));
    let run = tokio::spawn(supervisor.run(script));
    watched.changed().await.unwrap();
    assert!(
        matches!(&*watched.borrow_and_update(), State::Down { why } if why.kind() == ErrorKind::Timeout)
    );
    assert_eq!(handle.up().await.unwrap(), 2);
    handle.close();
    handle.close();
    run.await.unwrap().unwrap();
    handle.ended().await;
    assert_eq!(handle.up().await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn it_closes_while_it_waits_and_ends_with_its_last_handle_or_its_future() {
    let refuse = || script(std::iter::repeat_n(Play::Refuse(ErrorKind::Unavailable), 1000)).0;
    let (supervisor, handle) = Supervisor::new(BackoffConfig::default());
    let run = tokio::spawn(supervisor.run(refuse()));
    sleep(Duration::from_secs(100)).await;
    handle.close();
    run.await.unwrap().unwrap();

    let (supervisor, handle) = Supervisor::new(BackoffConfig::default());
    let run = tokio::spawn(supervisor.run(refuse()));
    drop(handle);
    run.await.unwrap().unwrap();

    let (supervisor, handle) = Supervisor::new(BackoffConfig::default());
    let run = tokio::spawn(supervisor.run(refuse()));
    sleep(Duration::from_secs(1)).await;
    run.abort();
    handle.ended().await;
    assert!(handle.state().is_ended());
}
