//! One measurement: time, CPU, and how far others disturbed it.

use std::ops::AddAssign;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use procfs::process::Process;
use procfs::{CurrentSI, KernelStats};
use rustix::time::{ClockId, clock_gettime};

use crate::allocations;

/// Where the server's CPU time is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    /// The broker is in this process.
    Here,
    /// A process of this machine.
    Process(i32),
    /// Unknown, so what others used is unknown too.
    Elsewhere,
}

/// A measurement that runs.
#[derive(Debug)]
pub(crate) struct Meter {
    server: Server,
    begun: Instant,
    own: Duration,
    others: Option<Others>,
    allocations: u64,
}

/// What the machine and the server had used at some moment.
#[derive(Clone, Copy, Debug)]
struct Others {
    machine: Duration,
    server: Duration,
}

/// What a measurement came to.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) messages: u64,
    pub(crate) elapsed: Duration,
    /// CPU time of this process.
    pub(crate) cpu: Duration,
    /// CPU time of the server's process.
    pub(crate) server: Option<Duration>,
    /// CPU time of everyone else on this machine.
    pub(crate) foreign: Option<Duration>,
    pub(crate) allocations: u64,
    /// Nanoseconds, where the case times each message.
    pub(crate) times: Option<Histogram<u64>>,
}

impl Meter {
    pub(crate) fn start(server: Server) -> Self {
        let others = Others::now(server);
        let (own, allocations) = (own(), allocations::count());
        Self { server, begun: Instant::now(), own, others, allocations }
    }

    pub(crate) fn stop(&self, messages: usize) -> Sample {
        let elapsed = self.begun.elapsed();
        let allocations = allocations::count() - self.allocations;
        let cpu = own().saturating_sub(self.own);
        let (server, foreign) = match (self.others, Others::now(self.server)) {
            (Some(before), Some(now)) => {
                let server = now.server.saturating_sub(before.server);
                let all = now.machine.saturating_sub(before.machine);
                (Some(server), Some(all.saturating_sub(server + cpu)))
            }
            _ => (None, None),
        };
        let messages = messages as u64;
        Sample { messages, elapsed, cpu, server, foreign, allocations, times: None }
    }
}

impl Sample {
    pub(crate) fn rate(&self) -> f64 {
        self.messages as f64 / self.elapsed.as_secs_f64()
    }

    /// Microseconds of this process a message.
    pub(crate) fn cpu_each(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.messages as f64
    }

    /// Microseconds of the server a message.
    pub(crate) fn server_each(&self) -> Option<f64> {
        Some(self.server?.as_secs_f64() * 1e6 / self.messages as f64)
    }

    /// Cores that others used.
    pub(crate) fn foreign_cores(&self) -> Option<f64> {
        Some(self.foreign?.as_secs_f64() / self.elapsed.as_secs_f64())
    }

    pub(crate) fn allocations_each(&self) -> f64 {
        self.allocations as f64 / self.messages as f64
    }
}

/// One after the other, as one.
impl AddAssign for Sample {
    fn add_assign(&mut self, other: Self) {
        self.messages += other.messages;
        self.elapsed += other.elapsed;
        self.cpu += other.cpu;
        self.server = self.server.zip(other.server).map(|(a, b)| a + b);
        self.foreign = self.foreign.zip(other.foreign).map(|(a, b)| a + b);
        self.allocations += other.allocations;
        if let (Some(times), Some(others)) = (&mut self.times, &other.times) {
            *times += others;
        }
    }
}

fn own() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

impl Others {
    fn now(server: Server) -> Option<Self> {
        let stat = KernelStats::current().ok()?.total;
        // What another guest took from us (steal) disturbs as much as a neighbour's program. Time
        // in interrupts is left out: those of our own loopback are among them.
        let steal = stat.steal_duration().unwrap_or_default();
        let machine = stat.user_duration() + stat.nice_duration() + stat.system_duration() + steal;
        let server = match server {
            Server::Here => Duration::ZERO,
            Server::Process(pid) => {
                let stat = Process::new(pid).and_then(|process| process.stat()).ok()?;
                let ticks = (stat.utime + stat.stime) as f64;
                Duration::from_secs_f64(ticks / procfs::ticks_per_second() as f64)
            }
            Server::Elsewhere => return None,
        };
        Some(Self { machine, server })
    }
}
