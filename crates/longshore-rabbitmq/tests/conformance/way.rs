//! A way of its own from one client to the server, which is cut where the suite plays the death of a
//! process.

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// Where a URL names none.
const PORT: u16 = 5672;
/// A way's port. Below those that the machine gives to outgoing connections: a client that comes
/// back to a way that is cut could else be connected to itself.
const PORTS: std::ops::Range<u16> = 10_000..32_000;
/// So many may be taken.
const TRIES: usize = 100;

/// A URL without encryption, taken apart at the address of its first server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Way<'a> {
    before: &'a str,
    address: String,
    after: &'a str,
}

impl<'a> Way<'a> {
    /// None to a server whose certificate is for its own name, or for what is no such URL.
    pub(crate) fn to(url: &'a str) -> Option<Self> {
        let rest = url.strip_prefix("amqp://")?;
        let (authority, after) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let hosts = authority.rsplit_once('@').map_or(authority, |(_, hosts)| hosts);
        let before = &url[..url.len() - after.len() - hosts.len()];
        let first = hosts.split(',').next().unwrap_or(hosts);
        // A colon inside brackets belongs to an address of version 6.
        let port = first.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
        let address = if port { first.to_owned() } else { format!("{first}:{PORT}") };
        Some(Self { before, address, after })
    }

    /// Opens it: the URL that leads over it, and the task whose end cuts it.
    pub(crate) async fn open(self) -> std::io::Result<(String, JoinHandle<()>)> {
        let listener = listen().await?;
        let port = listener.local_addr()?.port();
        let url = format!("{}127.0.0.1:{port}{}", self.before, self.after);
        Ok((url, tokio::spawn(forward(listener, self.address))))
    }
}

async fn listen() -> std::io::Result<TcpListener> {
    let mut tries = 1;
    loop {
        match TcpListener::bind(("127.0.0.1", fastrand::u16(PORTS))).await {
            Err(_) if tries < TRIES => tries += 1,
            outcome => return outcome,
        }
    }
}

/// Forwards to the server for as long as the task lives; both ends close with it.
async fn forward(listener: TcpListener, server: String) {
    let mut open = JoinSet::new();
    while let Ok((mut near, _)) = listener.accept().await {
        while open.try_join_next().is_some() {}
        let server = server.clone();
        open.spawn(async move {
            if let Ok(mut far) = TcpStream::connect(server).await {
                // As the client itself would set it.
                let _ = (near.set_nodelay(true), far.set_nodelay(true));
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            }
        });
    }
}
