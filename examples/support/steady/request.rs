//! One request and its answer, on whatever connection it is sent.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::tally::Failure;

/// Longer than any answer takes: what is later than this counts as never.
const PATIENCE: Duration = Duration::from_secs(8);

/// How long somebody who has answered may take to close, where that was asked for.
const FAREWELL: Duration = Duration::from_secs(1);

/// Until a reset that is on its way behind the end of a connection is here.
const SETTLE: Duration = Duration::from_millis(5);

/// A connection, and whether it has been used before.
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) used: bool,
}

/// A whole answer.
pub struct Answer {
    pub status: u16,
    pub body: String,
    /// Whoever has answered says that there will be no other on this connection, or has said nothing of its length.
    pub(super) last: bool,
}

impl Connection {
    pub(super) async fn new(address: SocketAddr) -> Result<Self, Failure> {
        match timeout(PATIENCE, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // A request is one segment.
                let _ = stream.set_nodelay(true);
                Ok(Self { stream, used: false })
            }
            Ok(Err(error)) if error.kind() == ErrorKind::TimedOut => Err(Failure::Hang),
            Ok(Err(error)) if error.kind() == ErrorKind::ConnectionReset => Err(Failure::Reset),
            Ok(Err(_)) => Err(Failure::Refused),
            Err(_) => Err(Failure::Hang),
        }
    }

    /// Nothing has come on it since the last answer, not even its end: what every client with a pool looks at.
    pub(super) fn is_open(&self) -> bool {
        // The kernel's own word, not what the runtime has heard of it so far.
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        recv(self.stream.as_raw_fd(), &mut [0], flags) == Err(Errno::EAGAIN)
    }

    /// The answer, as soon as all of it is here; no word of the server's in so long a time is none.
    pub(super) async fn ask(&mut self, request: &[u8]) -> Result<Answer, Failure> {
        let answer = self.exchange(request).await;
        self.used = true;
        match answer {
            Ok(answer) if answer.status < 500 => Ok(answer),
            Ok(_) => Err(Failure::Status),
            Err(failure) => Err(failure),
        }
    }

    async fn exchange(&mut self, request: &[u8]) -> Result<Answer, Failure> {
        if let Err(error) = self.stream.write_all(request).await {
            return Err(self.lost(&[], Some(&error)).await);
        }
        let mut seen = Vec::with_capacity(1024);
        loop {
            match timeout(PATIENCE, self.stream.read_buf(&mut seen)).await {
                Err(_) => return Err(if seen.is_empty() { Failure::Hang } else { Failure::Cut }),
                Ok(Err(error)) => return Err(self.lost(&seen, Some(&error)).await),
                Ok(Ok(0)) => match parse(&seen, true) {
                    Some(answer) => return Ok(answer),
                    None => return Err(self.lost(&seen, None).await),
                },
                Ok(Ok(_)) => {
                    if let Some(answer) = parse(&seen, false) {
                        return Ok(answer);
                    }
                }
            }
        }
    }

    /// Whoever answers is to close: closed by the client, each connection would keep a port for a minute.
    pub(super) async fn wait_for_end(mut self) {
        let mut rest = [0; 64];
        let end = async { while matches!(self.stream.read(&mut rest).await, Ok(1..)) {} };
        let _ = timeout(FAREWELL, end).await;
    }

    /// What it was that ended before the answer did.
    async fn lost(&self, seen: &[u8], error: Option<&io::Error>) -> Failure {
        if !seen.is_empty() {
            return Failure::Cut;
        }
        if error.is_none() {
            // The end of a connection that was closed before the request came: the reset that it gets for an answer is
            // told apart by the error behind the end.
            sleep(SETTLE).await;
        }
        let reset = error.is_some() || !matches!(self.stream.take_error(), Ok(None));
        match (self.used, reset) {
            (false, true) => Failure::Reset,
            (false, false) => Failure::Eof,
            (true, true) => Failure::Stale,
            (true, false) => Failure::StaleEof,
        }
    }
}

/// The answer, if all of it is there. `ended`: there will be no more.
fn parse(seen: &[u8], ended: bool) -> Option<Answer> {
    let end = seen.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&seen[..end]).ok()?;
    let body = &seen[end + 4..];
    let (first, headers) = head.split_once("\r\n").unwrap_or((head, ""));
    let header = |name: &str| {
        let mut pairs = headers.split("\r\n").filter_map(|line| line.split_once(':'));
        pairs.find_map(|(key, value)| key.eq_ignore_ascii_case(name).then(|| value.trim()))
    };
    let status = first.split(' ').nth(1)?.parse().ok()?;
    let is_chunked = header("transfer-encoding").is_some_and(|how| how.eq_ignore_ascii_case("chunked"));
    let length = header("content-length").and_then(|length| length.parse::<usize>().ok());
    let body = match length {
        _ if is_chunked => chunks(body)?,
        Some(length) => body.get(..length)?.to_vec(),
        None if ended => body.to_vec(),
        None => return None,
    };
    let says_close = header("connection").is_some_and(|word| word.eq_ignore_ascii_case("close"));
    let last = says_close || first.starts_with("HTTP/1.0") || (length.is_none() && !is_chunked);
    Some(Answer { status, body: String::from_utf8_lossy(&body).into_owned(), last })
}

/// The content of all chunks, the last and empty one of which must have come.
fn chunks(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        let line = rest.windows(2).position(|window| window == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).ok()?.trim(), 16).ok()?;
        let chunk = rest.get(line + 2..line + 2 + size)?;
        rest = rest.get(line + 2 + size..)?.strip_prefix(b"\r\n")?;
        if size == 0 {
            return Some(content);
        }
        content.extend_from_slice(chunk);
    }
}
