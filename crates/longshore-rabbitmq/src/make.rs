//! Makes exchanges, queues and bindings; all of it may be there already.

use lapin::options::{
    ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use longshore_core::Result;

use crate::ask::Questions;
use crate::error;
use crate::names::short;
use crate::objects::{Binding, Object, Shape, table};

/// Declares `object` as it is; the inner result is the server's word.
///
/// # Errors
/// Of the connection.
pub(crate) async fn declare(
    questions: &mut Questions<'_>,
    object: &Object,
    durable: bool,
    auto_delete: bool,
) -> Result<lapin::Result<()>> {
    let (name, arguments) = (short(&object.name)?, table(&object.arguments)?);
    match object.shape.clone() {
        Shape::Exchange(kind) => {
            let options = ExchangeDeclareOptions {
                durable,
                auto_delete,
                ..ExchangeDeclareOptions::default()
            };
            questions
                .put(|channel| async move {
                    channel.exchange_declare(name, kind, options, arguments).await
                })
                .await
        }
        Shape::Queue => {
            let options =
                QueueDeclareOptions { durable, auto_delete, ..QueueDeclareOptions::default() };
            questions
                .put(|channel| async move {
                    channel.queue_declare(name, options, arguments).await.map(|_| ())
                })
                .await
        }
    }
}

/// Binds `object` to where it gets its messages from.
///
/// # Errors
/// Of the connection, or of the server.
pub(crate) async fn bind(questions: &mut Questions<'_>, object: &Object) -> Result<()> {
    for Binding { source, key } in &object.bindings {
        let (name, from, key) = (short(&object.name)?, short(source)?, short(key)?);
        let queue = matches!(object.shape, Shape::Queue);
        let bound = questions
            .put(|channel| async move {
                let none = FieldTable::default();
                match queue {
                    true => {
                        let options = QueueBindOptions::default();
                        channel.queue_bind(name, from, key, options, none).await
                    }
                    false => {
                        let options = ExchangeBindOptions::default();
                        channel.exchange_bind(name, from, key, options, none).await
                    }
                }
            })
            .await?;
        bound.map_err(|native| {
            error::native(native)
                .with_context("object", object.label.clone())
                .with_context("bound to", source.clone())
        })?;
    }
    Ok(())
}
