//! Reading without settling.
//!
//! The broker has no such thing: what is looked at is held on a channel of its own and goes back to
//! its place with that channel's end. The broker counts that as a return.

use lapin::options::BasicGetOptions;
use longshore_core::{Cursor, Error, Page, Position, Received, Result, Source};
use std::sync::Arc;
use tokio::time::timeout;

use crate::deliver;
use crate::error::{self, BACKEND};
use crate::names::short;
use crate::reading::Reading;
use crate::shared::Shared;

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

pub(crate) async fn browse(
    shared: &Arc<Shared>,
    source: &Source,
    page: &Page,
) -> Result<Vec<Received>> {
    let skip = after(page.after.as_ref())?;
    let reading = Reading::new(shared.clone(), source, 1);
    reading.exists().await?;
    let session = shared.incoming.session(reading.by()).await?;
    let channel = session.channel().await?;
    let mut out = Vec::new();
    let mut read = 0u64;
    while out.len() < page.limit {
        let queue = short(reading.queue())?;
        let asked = channel.basic_get(queue, BasicGetOptions::default());
        let Ok(answer) = timeout(shared.patience(), asked).await else {
            return Err(error::timeout());
        };
        let Some(found) = answer.map_err(error::native)? else { break };
        read += 1;
        if read <= skip {
            continue;
        }
        let delivery = found.delivery;
        let body = delivery.data.into();
        let mut received =
            deliver::received(&reading, &delivery.properties, body, delivery.redelivered);
        received.position = Position::Sequence(read);
        out.push(received);
    }
    // The broker's answer says that everything is back in its place.
    let closed = channel.close(200, "looked".into());
    let _ = timeout(shared.patience(), closed).await;
    Ok(out)
}
