//! The smallest WebSocket client: short texts, one at a time.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

pub struct WebSocket {
    stream: TcpStream,
    /// Who is at the other end, by its own word.
    pub greeting: String,
}

const TEXT: u8 = 0x81;

const PATIENCE: Duration = Duration::from_secs(10);

impl WebSocket {
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(
            b"GET / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.extend(byte);
        }
        if !head.starts_with(b"HTTP/1.1 101 ") {
            return Err(io::Error::other(String::from_utf8_lossy(&head).into_owned()));
        }
        let mut socket = Self { stream, greeting: String::new() };
        socket.greeting = socket.hear()?;
        Ok(socket)
    }

    /// What is said comes back.
    pub fn echoes(&mut self, text: &str) -> io::Result<()> {
        // Masked with zeros, as a client has to mask it.
        let head = [TEXT, 0x80 | text.len() as u8, 0, 0, 0, 0];
        self.stream.write_all(&[&head, text.as_bytes()].concat())?;
        let answer = self.hear()?;
        if answer == text { Ok(()) } else { Err(io::Error::other(answer)) }
    }

    fn hear(&mut self) -> io::Result<String> {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head)?;
        if head[0] != TEXT || head[1] > 125 {
            return Err(io::Error::new(ErrorKind::InvalidData, format!("{head:?}")));
        }
        let mut text = vec![0; head[1].into()];
        self.stream.read_exact(&mut text)?;
        String::from_utf8(text).map_err(io::Error::other)
    }
}
