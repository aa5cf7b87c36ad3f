//! Reading without settling.
//!
//! The broker has no such thing: what is looked at is held on a channel of its own and goes back
//! with that channel's end. The broker counts that as a return, and puts what returned behind what
//! had returned before. So letters are all taken and all given back, where they are not too many:
//! then their order stays. A group's messages are only taken as far as the page needs, for the sake
//! of their count.

use std::sync::Arc;

use futures::future::join_all;
use futures::{FutureExt as _, StreamExt as _};
use lapin::Channel;
use lapin::message::Delivery;
use lapin::options::{BasicConsumeOptions, BasicGetOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use longshore_core::{Cursor, Error, ErrorKind, Page, Position, Received, Result, Source};
use std::time::Duration;
use tokio::time::timeout;

use crate::consumer::give_all_back;
use crate::deliver;
use crate::error::{self, BACKEND, error};
use crate::names::short;
use crate::reading::{Kind, Reading};
use crate::shared::Shared;

/// More letters than this are not all taken for the sake of their order.
const ORDERLY: u64 = 10_000;
/// Questions on their way at a time.
const WINDOW: u64 = 16;
/// A lane of which nothing comes for so long is read by a member.
const SILENCE: Duration = Duration::from_secs(1);

/// The broker has no positions: a cursor is how many stood before it.
fn after(cursor: Option<&Cursor>) -> Result<u64> {
    match cursor {
        None | Some(Position::None) => Ok(0),
        Some(Position::Sequence(read)) => Ok(*read),
        Some(other) => {
            let text = format!("`{}` is no cursor of this broker", other.to_text());
            Err(Error::config(text).with_backend(BACKEND))
        }
    }
}

/// What is wanted of all that is read.
struct Window {
    reading: Reading,
    skip: u64,
    limit: usize,
    read: u64,
    page: Vec<Received>,
}

impl Window {
    fn take(&mut self, delivery: Delivery) {
        self.read += 1;
        if self.read <= self.skip || self.page.len() >= self.limit {
            return;
        }
        let (properties, body) = (&delivery.properties, delivery.data.into());
        let mut received = deliver::received(&self.reading, properties, body, delivery.redelivered);
        received.position = Position::Sequence(self.read);
        self.page.push(received);
    }
}

pub(crate) async fn browse(
    shared: &Arc<Shared>,
    source: &Source,
    page: &Page,
) -> Result<Vec<Received>> {
    let skip = after(page.after.as_ref())?;
    let reading = Reading::new(shared.clone(), source, 1);
    let ready = reading.exists().await?;
    let needed = skip.saturating_add(u64::try_from(page.limit).unwrap_or(u64::MAX));
    let (kind, limit) = (reading.kind, page.limit);
    let mut window = Window { reading, skip, limit, read: 0, page: Vec::new() };
    if limit == 0 {
        return Ok(window.page);
    }
    let work = async {
        let session = shared.incoming.session(shared.deadline()).await?;
        session.channel().await
    };
    let channel = timeout(shared.patience(), work).await.map_err(|_| error::timeout())??;
    match kind {
        Kind::Suspects => consume(&channel, &mut window, needed, ready > 0).await?,
        Kind::Group => ask(&channel, &mut window, needed).await?,
        // The count of what is ready lags behind what was just given back: the end is where no
        // letter comes.
        Kind::Letters => ask(&channel, &mut window, needed.max(ORDERLY)).await?,
    }
    let _ = timeout(shared.patience(), give_all_back(&channel)).await;
    window.reading.shows(window.read).await;
    Ok(window.page)
}

async fn ask(channel: &Channel, window: &mut Window, count: u64) -> Result<()> {
    let queue = short(window.reading.queue())?;
    while window.read < count {
        let questions = (window.read..count.min(window.read + WINDOW))
            .map(|_| channel.basic_get(queue.clone(), BasicGetOptions::default()));
        let answers = timeout(window.reading.shared.patience(), join_all(questions)).await;
        for answer in answers.map_err(|_| error::timeout())? {
            match answer.map_err(error::native)? {
                Some(found) => window.take(found.delivery),
                // Somebody else took the rest.
                None => return Ok(()),
            }
        }
    }
    Ok(())
}

/// The broker answers no questions about a lane that one member reads.
async fn consume(channel: &Channel, window: &mut Window, count: u64, ready: bool) -> Result<()> {
    let (queue, tag) = (short(window.reading.queue())?, ShortString::default());
    let most = u16::try_from(count).unwrap_or(u16::MAX);
    let work = async {
        channel.basic_qos(most, BasicQosOptions { global: false }).await?;
        let options = BasicConsumeOptions::default();
        channel.basic_consume(queue, tag, options, FieldTable::default()).await
    };
    let consuming = timeout(window.reading.shared.patience(), work).await;
    let mut stream = consuming.map_err(|_| error::timeout())?.map_err(error::native)?.fuse();
    while window.read < u64::from(most) {
        match timeout(SILENCE, stream.next().boxed()).await {
            Ok(Some(next)) => window.take(next.map_err(error::native)?),
            Err(_) if window.read == 0 && ready => {
                let text = "a member reads the suspect lane, so that nobody else can look at it";
                return Err(error(ErrorKind::Unavailable, text));
            }
            Ok(None) | Err(_) => return Ok(()),
        }
    }
    Ok(())
}
