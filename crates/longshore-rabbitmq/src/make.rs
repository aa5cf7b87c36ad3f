//! Makes exchanges, queues and bindings, or looks for them. Of many, all are asked at once: one by one
//! they would take seconds where the server is far away.

use futures::future::join_all;
use lapin::Channel;
use lapin::options::{
    ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use longshore_core::{Error, Result};

use crate::ask::Questions;
use crate::error;
use crate::names::short;
use crate::objects::{Binding, Object, Shape, table};

/// How an object is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ask {
    /// Whether it is there, however it is set.
    Exists,
    /// To be there as it is wanted: made, or compared. `durable` and `auto_delete` are wanted so.
    As { durable: bool, auto_delete: bool },
}

/// As everything of ours is wanted.
pub(crate) const OURS: Ask = Ask::As { durable: true, auto_delete: false };

/// Asks for `object`; the inner result is the server's word.
///
/// # Errors
/// Of the connection.
pub(crate) async fn declare(
    questions: &mut Questions<'_>,
    object: &Object,
    ask: Ask,
) -> Result<lapin::Result<()>> {
    let answers = declare_all(questions, &[object], ask).await?;
    Ok(answers.into_iter().collect())
}

/// Asks for all of `objects` at once. A refusal of one is the answer to all that come behind it.
///
/// # Errors
/// Of the connection.
pub(crate) async fn declare_all(
    questions: &mut Questions<'_>,
    objects: &[&Object],
    ask: Ask,
) -> Result<Vec<lapin::Result<()>>> {
    let wanted = objects
        .iter()
        .map(|object| Ok((short(&object.name)?, table(&object.arguments)?, object.shape.clone())));
    let wanted = wanted.collect::<Result<Vec<_>>>()?;
    let (passive, durable, auto_delete) = match ask {
        Ask::Exists => (true, true, false),
        Ask::As { durable, auto_delete } => (false, durable, auto_delete),
    };
    let one = async |channel: &Channel, (name, arguments, shape)| match shape {
        Shape::Exchange(kind) => {
            let options = ExchangeDeclareOptions {
                passive,
                durable,
                auto_delete,
                ..ExchangeDeclareOptions::default()
            };
            channel.exchange_declare(name, kind, options, arguments).await
        }
        Shape::Queue => {
            let options = QueueDeclareOptions {
                passive,
                durable,
                auto_delete,
                ..QueueDeclareOptions::default()
            };
            channel.queue_declare(name, options, arguments).await.map(|_| ())
        }
    };
    let answers = questions
        .put(|channel| async move {
            Ok(join_all(wanted.into_iter().map(|wanted| one(&channel, wanted))).await)
        })
        .await?;
    answers.map_err(error::native)
}

/// Binds all of `objects` to where they get their messages from.
///
/// # Errors
/// Of the connection, or of the server, naming what it is about.
pub(crate) async fn bind_all(questions: &mut Questions<'_>, objects: &[&Object]) -> Result<()> {
    let all: Vec<_> =
        objects.iter().flat_map(|it| it.bindings.iter().map(move |to| (*it, to))).collect();
    if bind(questions, &all).await?.iter().all(Result::is_ok) {
        return Ok(());
    }
    // The server names the one that it refused in words only: each for itself, it is seen.
    for (object, binding) in all {
        let bound = bind(questions, &[(object, binding)]).await?;
        bound
            .into_iter()
            .collect::<lapin::Result<()>>()
            .map_err(|native| refused(native, object, binding))?;
    }
    Ok(())
}

fn refused(native: lapin::Error, object: &Object, binding: &Binding) -> Error {
    error::native(native)
        .with_context("object", object.label.clone())
        .with_context("source", binding.source.clone())
}

async fn bind(
    questions: &mut Questions<'_>,
    all: &[(&Object, &Binding)],
) -> Result<Vec<lapin::Result<()>>> {
    let wanted = all.iter().map(|(object, Binding { source, key })| {
        let queue = matches!(object.shape, Shape::Queue);
        Ok((queue, short(&object.name)?, short(source)?, short(key)?))
    });
    let wanted = wanted.collect::<Result<Vec<_>>>()?;
    let one = async |channel: &Channel, (queue, name, source, key)| {
        let none = FieldTable::default();
        match queue {
            true => channel.queue_bind(name, source, key, QueueBindOptions::default(), none).await,
            false => {
                let options = ExchangeBindOptions::default();
                channel.exchange_bind(name, source, key, options, none).await
            }
        }
    };
    let answers = questions
        .put(|channel| async move {
            Ok(join_all(wanted.into_iter().map(|wanted| one(&channel, wanted))).await)
        })
        .await?;
    answers.map_err(error::native)
}
