//! A few commands to a server that speaks the protocol of Redis, and what it says to each.

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use super::{LIMIT, connect};

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Text(String),
    Error(String),
}

/// Sends `lines`, one command each, and reads as many answers; texts only.
pub(crate) async fn resp(port: u16, lines: &[String]) -> Result<Vec<Said>, String> {
    let broken = |error| format!("port {port}: {error}");
    let mut stream = connect(port).await?;
    let request: String = lines.iter().flat_map(|line| [line, "\r\n"]).collect();
    stream.write_all(request.as_bytes()).await.map_err(broken)?;
    let mut reader = BufReader::new(stream.take(LIMIT));
    let mut answers = Vec::new();
    for _ in lines {
        let mut line = String::new();
        reader.read_line(&mut line).await.map_err(broken)?;
        let line = line.trim_end();
        answers.push(match line.split_at_checked(1) {
            Some(("+", text)) => Said::Text(text.to_owned()),
            Some(("-", text)) => Said::Error(text.to_owned()),
            Some(("$", length)) => {
                let length: u64 = length.parse().map_err(|_| format!("answered `{line}`"))?;
                let mut text = Vec::new();
                // With the line end behind it.
                let mut bulk = (&mut reader).take(length + 2);
                bulk.read_to_end(&mut text).await.map_err(broken)?;
                Said::Text(String::from_utf8_lossy(&text).into_owned())
            }
            _ => return Err(format!("port {port} answered `{line}`")),
        });
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::tests::serve;

    #[tokio::test]
    async fn each_command_has_its_answer() {
        let port = serve("+OK\r\n$4\r\na\r\nb\r\n-NOAUTH no\r\n").await;
        let lines = ["A", "B", "C"].map(str::to_owned);
        let said = resp(port, &lines).await.unwrap();
        let text = |text: &str| Said::Text(text.to_owned());
        assert_eq!(said, [text("OK"), text("a\r\nb\r\n"), Said::Error("NOAUTH no".to_owned())]);
        assert!(resp(serve("HTTP/1.0 400\r\n").await, &lines).await.is_err());
    }
}
