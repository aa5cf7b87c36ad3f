//! One process of a broker, and what can be done to it.

use std::ffi::OsStr;
use std::io::{Read, Seek, SeekFrom};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use crate::error::{Error, Result, blocking};
use crate::flavor::{Facts, Flavor, Order, Unit};
use crate::kit::tool;
use crate::process::Process;
use crate::slot::Slot;
use crate::supervisor::{KILL, Supervised};

/// Between two looks at a server that is not there yet; it starts in about 100 ms.
const POLL: Duration = Duration::from_millis(20);
/// For one answer. A stopped server's port still accepts, so the wait must be bounded.
const ANSWER: Duration = Duration::from_secs(2);
/// For an orderly end. NATS takes 0.1 s; RabbitMQ, the slowest, has been seen to take 3.4 s.
/// A busy machine takes several times as long.
pub(crate) const STOP: Duration = Duration::from_secs(30);
/// What an error shows of a log; `RabbitMQ` says why it ended 30 lines before it does.
pub(crate) const LINES: usize = 60;
/// For one run of a broker's own tool; `rabbitmqctl` takes 0.5 s.
const TOLD: Duration = Duration::from_secs(60);
/// For a stop signal to reach all threads.
const PAUSE: Duration = Duration::from_secs(5);

/// One process of a broker. Its data folder and its ports stay the same through restarts.
#[derive(Debug)]
pub struct Node {
    // Dropped first: the folder of the slot is removed after the process is gone.
    running: Mutex<Option<Supervised>>,
    unit: Arc<Unit>,
    terms: Terms,
    /// One thing at a time: a restart within a pause would leave either half done.
    turn: tokio::sync::Mutex<()>,
    /// One run of the tool at a time: it may listen at a port of the node's.
    tool: tokio::sync::Mutex<()>,
    slot: Arc<Slot>,
}

/// What a node has in common with others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) flavor: &'static dyn Flavor,
    pub(crate) patience: Duration,
}

impl Node {
    pub(crate) fn new(unit: Unit, terms: Terms, slot: Arc<Slot>) -> Self {
        let (unit, turn, tool) = (Arc::new(unit), <_>::default(), <_>::default());
        Self { running: Mutex::default(), unit, terms, turn, tool, slot }
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

    /// The port of a purpose: the broker's page of the testbed names them. The same through
    /// restarts.
    pub fn port(&self, purpose: &str) -> Option<u16> {
        let index = self.terms.flavor.ports().iter().position(|name| *name == purpose)?;
        self.unit.ports.get(index).copied()
    }

    /// What the broker's own command-line tool says when it is told this about this node:
    /// `rabbitmqctl`.
    ///
    /// # Errors
    ///
    /// `Unsupported` where the broker has no such tool; `Tool` where it fails, or takes longer than
    /// a minute, as it does while the node is paused.
    pub async fn control<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<String> {
        let _turn = self.tool.lock().await;
        let Some((program, first)) = &self.unit.tool else {
            return Err(self.unsupported("command-line tool"));
        };
        let mut command = Command::new(program);
        let environment = self.unit.environment.iter().map(|(key, value)| (key, value));
        command.args(first).args(arguments).envs(environment).current_dir(&self.unit.folder);
        tool::run(&mut command, TOLD).await
    }

    /// Makes the node believe that its memory is full, so that it takes no message, or lets it know
    /// better. Returns when it believes so.
    ///
    /// # Errors
    ///
    /// `Unsupported` where the broker has no such state.
    pub async fn memory_alarm(&self, on: bool) -> Result<()> {
        let order = self.terms.flavor.memory_alarm(on);
        self.obey(&order.ok_or_else(|| self.unsupported("memory alarm"))?).await
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
        while !process.identity.is_stopped() {
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
        self.slot.started(&self.unit.name, started.process().identity, self.unit.helper)?;
        *self.held() = Some(started);
        Ok(())
    }

    /// Asks until it is ready, it ended, or the patience is over.
    pub(crate) async fn ready(&self) -> Result<Facts> {
        let process = self.process()?;
        let deadline = Instant::now() + self.terms.patience;
        loop {
            // A dead server's port may be another's by now: looked at before the answer counts.
            if process.ends_within(Duration::ZERO) {
                return Err(Error::Died {
                    node: self.unit.name.clone(),
                    log: self.log_tail(LINES),
                });
            }
            let last = match timeout(ANSWER, self.terms.flavor.probe(&self.unit)).await {
                Ok(Ok(facts)) => return Ok(facts),
                Ok(Err(why)) => why,
                Err(_) => format!("no answer within {ANSWER:?}"),
            };
            if Instant::now() > deadline {
                let (node, log) = (self.unit.name.clone(), self.log_tail(LINES));
                return Err(Error::Late { node, waited: self.terms.patience, last, log });
            }
            sleep(POLL).await;
        }
    }

    /// Tells the tool, until its answer shows that it is done or the patience is over.
    pub(crate) async fn obey(&self, order: &Order) -> Result<()> {
        let deadline = Instant::now() + self.terms.patience;
        loop {
            let answer = self.control(&order.arguments).await?;
            if (order.done)(&answer) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let (node, order) = (self.unit.name.clone(), order.arguments.join(" "));
                return Err(Error::Disobeyed { node, order, waited: self.terms.patience, answer });
            }
            sleep(POLL).await;
        }
    }

    /// Lets it run on after this process.
    pub(crate) fn leave(&self) -> Result<()> {
        self.held().take().map_or(Ok(()), Supervised::leave)
    }

    pub(crate) fn is_helper(&self) -> bool {
        self.unit.helper
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

    fn unsupported(&self, what: &'static str) -> Error {
        Error::Unsupported { node: self.unit.name.clone(), what }
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
