//! The named brokers of this process, and the clients of each broker.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use longshore_core::{BrokerInfo, Error, Result, Setup};

use crate::config::Config;
use crate::error::{BACKEND, closed};
use crate::world::World;

static NAMED: LazyLock<Mutex<HashMap<String, Named>>> = LazyLock::new(Mutex::default);
static CLIENTS: AtomicU64 = AtomicU64::new(1);

struct Named {
    world: Arc<World>,
    clients: usize,
}

fn named() -> MutexGuard<'static, HashMap<String, Named>> {
    NAMED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One connection: what a client and its publishers and consumers share.
pub(crate) struct Client {
    pub(crate) id: u64,
    pub(crate) world: Arc<World>,
    pub(crate) config: Config,
    pub(crate) setup: Setup,
    pub(crate) info: BrokerInfo,
    closed: AtomicBool,
}

impl Client {
    pub(crate) fn connect(
        config: Config,
        setup: Setup,
        info: impl FnOnce(&Config, &World) -> BrokerInfo,
    ) -> Result<Self> {
        let world = attach(&config)?;
        Ok(Self {
            id: CLIENTS.fetch_add(1, Ordering::Relaxed),
            info: info(&config, &world),
            world,
            config,
            setup,
            closed: AtomicBool::new(false),
        })
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(closed("client")) } else { Ok(()) }
    }

    /// Gives back what its consumers hold and lets go of the broker's name. The broker itself goes
    /// with the last that refers to it.
    pub(crate) fn close(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut state = self.world.lock();
        state.groups.iter_mut().for_each(|group| group.leave_all(self.id));
        drop(state);
        // Its own publisher may be first in line.
        self.world.room.notify_one();
        if let Some(name) = &self.config.name {
            detach(name);
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.close();
    }
}

fn attach(config: &Config) -> Result<Arc<World>> {
    let make = || Arc::new(World::new(config.capacity.value, config.dedup.value));
    let Some(name) = &config.name else {
        return Ok(make());
    };
    let mut all = named();
    if let Some(known) = all.get(name) {
        let (capacity, dedup) = (&config.capacity, &config.dedup);
        if capacity.conflicts_with(&known.world.capacity)
            || dedup.conflicts_with(&known.world.dedup)
        {
            let text = format!(
                "`memory://{name}` exists with capacity={} and dedup={:?}",
                known.world.capacity, known.world.dedup
            );
            return Err(Error::config(text).with_backend(BACKEND));
        }
    }
    let entry = all.entry(name.clone()).or_insert_with(|| Named { world: make(), clients: 0 });
    entry.clients += 1;
    Ok(entry.world.clone())
}

fn detach(name: &str) {
    let mut all = named();
    if let Some(entry) = all.get_mut(name) {
        entry.clients -= 1;
        if entry.clients == 0 {
            all.remove(name);
        }
    }
}
