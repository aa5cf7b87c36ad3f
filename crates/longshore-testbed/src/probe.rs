//! One question to a server, over plain TCP.

mod amqp;
mod resp;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

pub(crate) use self::amqp::amqp;
pub(crate) use self::resp::{Said, resp};

/// The most that a server may say; a greeting is about 1 KiB.
const LIMIT: u64 = 64 * 1024;

async fn connect(port: u16) -> Result<TcpStream, String> {
    let refused = |error| format!("port {port}: {error}");
    TcpStream::connect(("127.0.0.1", port)).await.map_err(refused)
}

/// `GET path` answers 200; else what it answered.
pub(crate) async fn http_ok(port: u16, path: &str) -> Result<(), String> {
    let mut stream = connect(port).await?;
    let broken = |error| format!("GET {path}: {error}");
    let request = format!("GET {path} HTTP/1.0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(broken)?;
    let mut answer = Vec::new();
    stream.take(LIMIT).read_to_end(&mut answer).await.map_err(broken)?;
    let answer = String::from_utf8_lossy(&answer);
    if answer.split_whitespace().nth(1) == Some("200") {
        return Ok(());
    }
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    Err(format!("GET {path}: {} {}", head.lines().next().unwrap_or_default(), body.trim()))
}

/// The first line that the server says unasked.
pub(crate) async fn first_line(port: u16) -> Result<String, String> {
    let mut line = String::new();
    let mut reader = BufReader::new(connect(port).await?.take(LIMIT));
    reader.read_line(&mut line).await.map_err(|error| format!("port {port}: {error}"))?;
    Ok(line.trim_end().to_owned())
}

/// Erlang's port mapper answers when it is asked for the names it knows.
pub(crate) async fn epmd(port: u16) -> Result<(), String> {
    let mut stream = connect(port).await?;
    let broken = |error| format!("asking epmd: {error}");
    // A length of one byte, and the request for the names.
    stream.write_all(&[0, 1, b'n']).await.map_err(broken)?;
    let said = stream.read_u32().await.map_err(broken)?;
    // It begins with its own port.
    if said == u32::from(port) { Ok(()) } else { Err(format!("epmd says its port is {said}")) }
}

#[cfg(test)]
pub(crate) mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// Says this to the first who connects; its port.
    pub(crate) async fn serve(answer: &'static str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            // Read to the end, so that the close is no reset.
            let _ = stream.shutdown().await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        });
        port
    }

    #[tokio::test]
    async fn only_200_is_ready_and_the_rest_is_told() {
        let port = serve("HTTP/1.0 200 OK\r\n\r\n{}").await;
        assert_eq!(http_ok(port, "/healthz").await, Ok(()));
        let port = serve("HTTP/1.0 503 Service Unavailable\r\n\r\nrecovering").await;
        let why = http_ok(port, "/healthz").await.unwrap_err();
        assert_eq!(why, "GET /healthz: HTTP/1.0 503 Service Unavailable recovering");
        let port = serve("").await;
        assert!(http_ok(port, "/healthz").await.is_err());
    }

    #[tokio::test]
    async fn a_greeting_is_one_line() {
        let port = serve("INFO {}\r\nPING\r\n").await;
        assert_eq!(first_line(port).await.unwrap(), "INFO {}");
    }
}
