//! One question over HTTP/1.1 (RFC 9112) and its answer: what checks, sidecars and subcommands need of a client. A
//! connection is used once, a head is small, and a body has a length or ends with the connection.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// More than any head that answers a simple question.
const HEAD_LIMIT: usize = 32 * 1024;

const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// For the Host header.
    pub authority: &'a str,
    /// JSON.
    pub body: Option<&'a str>,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// None of it where none was wanted.
    pub body: Vec<u8>,
}

/// A connection of any kind.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Put the question and take at most `limit` bytes of an answer's body; with 0 the status is all that is waited for.
///
/// # Errors
/// UnexpectedEof where the connection ends before the answer does; InvalidData where the answer is none, or too long.
pub async fn ask(stream: &mut dyn Stream, question: Question<'_>, limit: usize) -> io::Result<Answer> {
    // Who will not hear all of it may have answered already.
    let _ = stream.write_all(question.text().as_bytes()).await;
    let mut received = Vec::new();
    loop {
        if let Some(head) = Head::read(&received)? {
            let body = received.get(head.ends..).unwrap_or_default();
            if limit == 0 || head.length.is_some_and(|length| body.len() >= length) {
                let length = head.length.unwrap_or(0).min(limit);
                return Ok(Answer { status: head.status, body: body.get(..length).unwrap_or(body).to_vec() });
            }
            if head.length.unwrap_or(0).max(body.len()) > limit {
                return Err(invalid("the answer is too long"));
            }
        } else if received.len() > HEAD_LIMIT {
            return Err(invalid("the head of the answer is too long"));
        }
        if stream.read_buf(&mut received).await? == 0 {
            let head = Head::read(&received)?.filter(|head| head.length.is_none());
            let head = head.ok_or(io::ErrorKind::UnexpectedEof)?;
            return Ok(Answer { status: head.status, body: received.split_off(head.ends) });
        }
    }
}

impl Question<'_> {
    fn text(&self) -> String {
        let Self { method, target, authority, body } = self;
        let mut text = format!(
            "{method} {target} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\nUser-Agent: drainit/{}\r\n",
            env!("CARGO_PKG_VERSION")
        );
        if body.is_some() {
            text += "Content-Type: application/json\r\n";
        }
        // RFC 9110, 8.6: a POST that has nothing to say says so.
        if body.is_some() || *method == "POST" {
            text += &format!("Content-Length: {}\r\n", body.map_or(0, str::len));
        }
        text + "\r\n" + body.unwrap_or_default()
    }
}

struct Head {
    status: u16,
    length: Option<usize>,
    /// Where the body begins.
    ends: usize,
}

impl Head {
    /// `None` as long as it is not all there. Interim answers (1xx) are passed over.
    fn read(received: &[u8]) -> io::Result<Option<Self>> {
        let mut begins = 0;
        loop {
            let rest = received.get(begins..).unwrap_or_default();
            let Some(end) = rest.windows(END_OF_HEAD.len()).position(|window| window == END_OF_HEAD) else {
                return Ok(None);
            };
            let text = String::from_utf8_lossy(rest.get(..end).unwrap_or_default());
            let mut lines = text.split("\r\n");
            let status = lines.next().and_then(status).ok_or_else(|| invalid("the answer is not HTTP"))?;
            let ends = begins + end + END_OF_HEAD.len();
            if (100..200).contains(&status) {
                begins = ends;
                continue;
            }
            let mut fields = lines.filter_map(|line| line.split_once(':'));
            let length = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
            let length = length.and_then(|(_, value)| value.trim().parse().ok());
            return Ok(Some(Self { status, length, ends }));
        }
    }
}

/// `HTTP/1.1 200 OK`
fn status(line: &str) -> Option<u16> {
    let (version, rest) = line.split_once(' ')?;
    let status = rest.split(' ').next()?.parse().ok()?;
    (version.starts_with("HTTP/1.") && (100..1000).contains(&status)).then_some(status)
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    const QUESTION: Question<'static> =
        Question { method: "POST", target: "/x?y", authority: "here", body: Some("{}") };

    /// The answer to what the server says, piece by piece, before it closes; and what it was asked.
    async fn answered(pieces: &[&str], limit: usize) -> (io::Result<Answer>, String) {
        let (mut client, mut server) = duplex(1 << 16);
        for piece in pieces {
            server.write_all(piece.as_bytes()).await.unwrap();
        }
        server.shutdown().await.unwrap();
        let answer = ask(&mut client, QUESTION, limit).await;
        drop(client);
        let mut asked = String::new();
        server.read_to_string(&mut asked).await.unwrap();
        (answer, asked)
    }

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, body: body.into() }
    }

    #[tokio::test]
    async fn an_answer_ends_with_its_length_or_with_the_connection() {
        let (said, asked) = answered(&["HTTP/1.1 200 OK\r\ncontent-LENGTH: 3\r\n\r\nabcd"], 10).await;
        assert_eq!(said.unwrap(), answer(200, "abc"));
        let head = "POST /x?y HTTP/1.1\r\nHost: here\r\nConnection: close\r\n";
        assert!(asked.starts_with(head) && asked.ends_with("\r\nContent-Length: 2\r\n\r\n{}"), "{asked}");
        let (said, _) = answered(&["HTTP/1.0 404 No\r\n", "X: y\r\n\r", "\nab", "c"], 10).await;
        assert_eq!(said.unwrap(), answer(404, "abc"));
        let (said, _) = answered(&["HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 204\r\n\r\n"], 10).await;
        assert_eq!(said.unwrap(), answer(204, ""));
        let (said, _) = answered(&["HTTP/1.1 503 X\r\nContent-Length: 1000000\r\n\r\nabc"], 0).await;
        assert_eq!(said.unwrap(), answer(503, ""), "the status is all that was wanted");
    }

    #[tokio::test]
    async fn what_is_no_answer_is_told_apart() {
        let kind = async |text: &str| answered(&[text], 10).await.0.unwrap_err().kind();
        for cut in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab"] {
            assert_eq!(kind(cut).await, io::ErrorKind::UnexpectedEof, "{cut}");
        }
        let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(HEAD_LIMIT + 10_000));
        let endless = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(11));
        for wrong in [
            "SSH-2.0-x\r\n\r\n",
            "HTTP/2 200\r\n\r\n",
            "HTTP/1.1 x\r\n\r\n",
            &endless,
            &long[..HEAD_LIMIT + 5_000],
        ] {
            assert_eq!(kind(wrong).await, io::ErrorKind::InvalidData, "{}", wrong.len());
        }
    }
}
