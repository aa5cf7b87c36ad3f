//! A way to the server that can lose an answer.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Forwards everything but the first `losses` answers that hold `marker`: these are dropped, and
/// their connections with them.
pub(crate) struct Proxy {
    pub(crate) url: String,
    losses: Arc<AtomicUsize>,
}

impl Proxy {
    pub(crate) async fn new(server: std::net::SocketAddr, marker: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let losses = Arc::new(AtomicUsize::new(0));
        let shared = losses.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(server).await.unwrap();
                tokio::spawn(forward(near, far, marker, shared.clone()));
            }
        });
        Self { url, losses }
    }

    pub(crate) fn lose(&self, answers: usize) {
        self.losses.store(answers, Ordering::SeqCst);
    }

    pub(crate) fn left(&self) -> usize {
        self.losses.load(Ordering::SeqCst)
    }
}

async fn forward(near: TcpStream, far: TcpStream, marker: &str, losses: Arc<AtomicUsize>) {
    let (mut near_in, mut near_out) = near.into_split();
    let (mut far_in, mut far_out) = far.into_split();
    let asks = tokio::spawn(async move {
        let _ = tokio::io::copy(&mut near_in, &mut far_out).await;
    });
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = far_in.read(&mut buffer).await {
        let holds = buffer[..count].windows(marker.len()).any(|part| part == marker.as_bytes());
        let lost = holds
            && losses
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
                .is_ok();
        if lost || near_out.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
    asks.abort();
}
