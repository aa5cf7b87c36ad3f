//! Handlers: async functions and closures, raw or typed, of both arities.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;

use futures::future::BoxFuture;
use longshore_core::{Failure, Received};
use serde::de::DeserializeOwned;

use crate::context::Context;

/// The result of a handler run.
pub type Handled = Result<(), Failure>;

/// An async function of `(Received)` or `(Received, Context)`. `Args` tells the arities apart and
/// is inferred.
pub trait Handler<Args>: Send + Sync + 'static {
    /// Runs it.
    fn call(&self, received: Received, context: Context) -> BoxFuture<'static, Handled>;
}

impl<F, Fut> Handler<(Received,)> for F
where
    F: Fn(Received) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Handled> + Send + 'static,
{
    fn call(&self, received: Received, _: Context) -> BoxFuture<'static, Handled> {
        Box::pin(self(received))
    }
}

impl<F, Fut> Handler<(Received, Context)> for F
where
    F: Fn(Received, Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Handled> + Send + 'static,
{
    fn call(&self, received: Received, context: Context) -> BoxFuture<'static, Handled> {
        Box::pin(self(received, context))
    }
}

/// An async function of `(T)` or `(T, Context)`, where `T` is decoded from the body.
pub trait TypedHandler<T, Args>: Send + Sync + 'static {
    /// Runs it.
    fn call(&self, value: T, context: Context) -> BoxFuture<'static, Handled>;
}

impl<T, F, Fut> TypedHandler<T, (T,)> for F
where
    F: Fn(T) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Handled> + Send + 'static,
{
    fn call(&self, value: T, _: Context) -> BoxFuture<'static, Handled> {
        Box::pin(self(value))
    }
}

impl<T, F, Fut> TypedHandler<T, (T, Context)> for F
where
    F: Fn(T, Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Handled> + Send + 'static,
{
    fn call(&self, value: T, context: Context) -> BoxFuture<'static, Handled> {
        Box::pin(self(value, context))
    }
}

/// A handler of any kind, as the worker holds it.
#[derive(Clone)]
pub(crate) struct AnyHandler {
    run: Arc<dyn Fn(Received, Context) -> BoxFuture<'static, Handled> + Send + Sync>,
    pub(crate) name: &'static str,
}

impl AnyHandler {
    pub(crate) fn raw<H: Handler<Args>, Args: 'static>(handler: H) -> Self {
        let run = move |received, context| handler.call(received, context);
        Self { run: Arc::new(run), name: std::any::type_name::<H>() }
    }

    pub(crate) fn json<T, H, Args>(handler: H) -> Self
    where
        T: DeserializeOwned + Send + 'static,
        H: TypedHandler<T, Args>,
        Args: 'static,
    {
        let typed = Typed { handler, types: PhantomData };
        let run = move |received: Received, context| typed.call(&received, context);
        Self { run: Arc::new(run), name: std::any::type_name::<H>() }
    }

    pub(crate) fn call(&self, received: Received, context: Context) -> BoxFuture<'static, Handled> {
        (self.run)(received, context)
    }
}

impl fmt::Debug for AnyHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

struct Typed<H, T, Args> {
    handler: H,
    // Neither owns nor sends a T.
    types: PhantomData<fn() -> (T, Args)>,
}

impl<T: DeserializeOwned, H: TypedHandler<T, Args>, Args> Typed<H, T, Args> {
    fn call(&self, received: &Received, context: Context) -> BoxFuture<'static, Handled> {
        match serde_json::from_slice(&received.body) {
            Ok(value) => self.handler.call(value, context),
            // No run of the handler can mend the bytes.
            Err(error) => Box::pin(std::future::ready(Err(Failure::undecodable(error)))),
        }
    }
}
