//! One process of a broker, and what can be done to it.

use std::io::{Read, Seek, SeekFrom};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::time::{sleep, timeout};

use crate::error::{Error, Result, blocking};
use crate::flavor::{Facts, Flavor, Unit};
use crate::process::Process;
use crate::slot::Slot;
use crate::supervisor::{KILL, Supervised};

/// Between two looks at a server that is not there yet; it starts in about 100 ms.
const POLL: Duration = Duration::from_millis(20);
/// For one answer. A stopped server's port still accepts, so the wait must be bounded.
const ANSWER: Duration = Duration::from_secs(2);
/// For an orderly end. NATS takes 0.1 s; RabbitMQ, the slowest, has been seen to take 3.4 s.
pub(crate) const STOP: Duration = Duration::from_secs(15);
/// For a stop signal to reach all threads.
const PAUSE: Duration = Duration::from_secs(5);

/// One process of a broker. Its data folder and its ports stay the same through restarts.
#[derive(Debug)]
pub struct Node {
    // Dropped first: the folder of the slot is removed after the process is gone.
    running: Mutex<Option<Supervised>>,
    unit: Arc<Unit>,
    flavor: &'static dyn Flavor,
    patience: Duration,
    /// One thing at a time: a restart within a pause would leave either half done.
    turn: tokio::sync::Mutex<()>,
    slot: Arc<Slot>,
}

impl Node {
    pub(crate) fn new(
        unit: Unit,
        flavor: &'static dyn Flavor,
        patience: Duration,
        slot: Arc<Slot>,
    ) -> Self {
        let unit = Arc::new(unit);
        Self { running: Mutex::default(), unit, flavor, patience, turn: <_>::default(), slot }
    }

    /// The process's name in the testbed.
    pub fn name(&self) -> &str {
        &self.unit.name
    }

    /// The number of the server's process; none while it does not run.
    pub fn pid(&self) -> Option<u32> {
        let running = self.process().ok().filter(|process| !process.ends_within(Duration::ZERO));
        running.map(|process| process.identity.pid)
    }

    /// The last `lines` lines of its log, of all its starts.
    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.unit, lines)
    }

    /// Ends it in order: TERM, then KILL. Nothing to do where it does not run.
    pub async fn stop(&self) -> Result<()> {
        let _turn = self.turn.lock().await;
        self.end(Signal::TERM, STOP).await
    }

    /// Kills it at once, as a crash would, and returns when the last of its threads is gone.
    pub async fn kill(&self) -> Result<()> {
        let _turn = self.turn.lock().await;
        self.end(Signal::KILL, KILL).await
    }

    /// Stops it if it runs, starts it with the same data and ports, returns when it is ready.
    pub async fn restart(&self) -> Result<()> {
        self.stop().await?;
        self.start().await?;
        self.ready().await.map(|_| ())
    }

    /// Stops its clock (SIGSTOP): connections stay open and nothing is answered.
    pub async fn pause(&self) -> Result<()> {
        let _turn = self.turn.lock().await;
        let process = self.process()?;
        process.signal(Signal::STOP)?;
        let deadline = Instant::now() + PAUSE;
        while !process.is_stopped() {
            if Instant::now() > deadline {
                return Err(self.stuck("pause", PAUSE));
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// Lets it go on (SIGCONT), and returns when it answers again.
    pub async fn resume(&self) -> Result<()> {
        let _turn = self.turn.lock().await;
        self.process()?.signal(Signal::CONT)?;
        self.ready().await.map(|_| ())
    }

    pub(crate) async fn start(&self) -> Result<()> {
        let _turn = self.turn.lock().await;
        if self.pid().is_some() {
            // A restart beside this one was first; a second server would find the port taken.
            return Ok(());
        }
        let unit = self.unit.clone();
        let started = blocking("starting a server", move || Supervised::start(&unit)).await?;
        self.slot.started(&self.unit.name, started.process().identity)?;
        *self.held() = Some(started);
        Ok(())
    }

    /// Asks until it is ready, it ended, or the patience is over.
    pub(crate) async fn ready(&self) -> Result<Facts> {
        let process = self.process()?;
        let deadline = Instant::now() + self.patience;
        loop {
            // A dead server's port may be another's by now: looked at before the answer counts.
            if process.ends_within(Duration::ZERO) {
                return Err(Error::Died { node: self.unit.name.clone(), log: self.log_tail(20) });
            }
            let last = match timeout(ANSWER, self.flavor.probe(&self.unit)).await {
                Ok(Ok(facts)) => return Ok(facts),
                Ok(Err(why)) => why,
                Err(_) => format!("no answer within {ANSWER:?}"),
            };
            if Instant::now() > deadline {
                let (node, log) = (self.unit.name.clone(), self.log_tail(20));
                return Err(Error::Late { node, waited: self.patience, last, log });
            }
            sleep(POLL).await;
        }
    }

    /// Lets it run on after this process.
    pub(crate) fn leave(&self) -> Result<()> {
        self.held().take().map_or(Ok(()), Supervised::leave)
    }

    pub(crate) fn ports(&self) -> &[u16] {
        &self.unit.ports
    }

    async fn end(&self, signal: Signal, patience: Duration) -> Result<()> {
        let Ok(process) = self.process() else { return Ok(()) };
        process.signal(signal)?;
        // A paused process takes its TERM only when it goes on.
        process.signal(Signal::CONT)?;
        if !process.ended_within(patience).await {
            process.signal(Signal::KILL)?;
            if !process.ended_within(KILL).await {
                return Err(self.stuck("end", patience + KILL));
            }
        }
        // Takes the shell, and what helpers are left of the server.
        self.held().take();
        Ok(())
    }

    fn process(&self) -> Result<Arc<Process>> {
        let not_running = || Error::NotRunning { node: self.unit.name.clone() };
        self.held().as_ref().map(|running| running.process().clone()).ok_or_else(not_running)
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Option<Supervised>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stuck(&self, action: &'static str, waited: Duration) -> Error {
        Error::Stuck { node: self.unit.name.clone(), action, waited }
    }
}

/// The last lines of a log, from no more than its last 16 KiB.
pub(crate) fn tail(unit: &Unit, lines: usize) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(unit.log())?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(16 * 1024)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let all: Vec<_> = text.lines().collect();
            all[all.len().saturating_sub(lines)..].join("\n")
        }
        Err(error) => format!("(its log cannot be read: {error})"),
    }
}
