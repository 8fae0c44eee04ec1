//! A request on a connection of its own, in the server's language, and who has answered it.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::row::{Protocol, Setting};
use crate::load::{self, Kind};

#[derive(Clone, Debug)]
pub enum Client {
    Http(Vec<u8>),
    FastCgi(Vec<u8>),
}

impl Client {
    pub fn new(speaks: Protocol, setting: &Setting) -> Self {
        match speaks {
            Protocol::Http(path) => Self::Http(load::http_request(path)),
            Protocol::FastCgi(script) => Self::FastCgi(fastcgi_request(&setting.fill(script))),
        }
    }

    /// The process that has answered, by its own word: `pid N`, somewhere in the answer.
    pub fn ask(&self, from: Ipv4Addr, to: SocketAddrV4) -> Result<i32, Kind> {
        let answer = match self {
            Self::Http(request) => {
                let answer = load::exchange(connect(from, to), request)?;
                load::check_http(&answer).map(|()| answer)?
            }
            Self::FastCgi(request) => fastcgi_output(&load::exchange(connect(from, to), request)?)?,
        };
        pid(&String::from_utf8_lossy(&answer)).ok_or(Kind::Cut)
    }
}

fn connect(from: Ipv4Addr, to: SocketAddrV4) -> io::Result<TcpStream> {
    let socket = socket::socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    socket::setsockopt(
        &socket,
        sockopt::SendTimeout,
        &TimeVal::milliseconds(load::PATIENCE.as_millis() as i64),
    )?;
    // The port is chosen when it is known where to.
    socket::setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
    socket::bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(from, 0)))?;
    socket::connect(socket.as_raw_fd(), &SockaddrIn::from(to))?;
    Ok(socket.into())
}

fn pid(answer: &str) -> Option<i32> {
    let digits = answer.split_once("pid ")?.1;
    digits.split(|next: char| !next.is_ascii_digit()).next()?.parse().ok()
}

const BEGIN: u8 = 1;
const END: u8 = 3;
const PARAMETERS: u8 = 4;
const INPUT: u8 = 5;
const OUTPUT: u8 = 6;

fn fastcgi_request(script: &str) -> Vec<u8> {
    let responder = [0, 1, 0, 0, 0, 0, 0, 0];
    let parameters: Vec<u8> = [("SCRIPT_FILENAME", script), ("REQUEST_METHOD", "GET")]
        .into_iter()
        .flat_map(|(name, value)| [length(name), length(value), name.into(), value.into()].concat())
        .collect();
    let records: [(u8, &[u8]); 4] =
        [(BEGIN, &responder), (PARAMETERS, &parameters), (PARAMETERS, &[]), (INPUT, &[])];
    records.into_iter().flat_map(|(kind, content)| record(kind, content)).collect()
}

/// In the long form, which fits all.
fn length(text: &str) -> Vec<u8> {
    (u32::try_from(text.len()).unwrap() | 1 << 31).to_be_bytes().into()
}

fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[1, kind, 0, 1, high, low, 0, 0], content].concat()
}

fn fastcgi_output(mut answer: &[u8]) -> Result<Vec<u8>, Kind> {
    let mut output = Vec::new();
    while let [_, kind, _, _, high, low, padding, _, rest @ ..] = answer {
        let size = usize::from(u16::from_be_bytes([*high, *low]));
        let content = rest.get(..size).ok_or(Kind::Cut)?;
        match *kind {
            OUTPUT => output.extend_from_slice(content),
            END if content.iter().any(|byte| *byte != 0) || output.starts_with(b"Status:") => {
                return Err(Kind::Status);
            }
            END => return Ok(output),
            _ => {}
        }
        answer = rest.get(size + usize::from(*padding)..).ok_or(Kind::Cut)?;
    }
    Err(Kind::Cut)
}
