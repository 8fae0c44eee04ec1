//! Connections from an address of one's choice.
#![allow(dead_code, reason = "shared by tests that need different parts of it")]

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};

use crate::common::http::{self, Answer};

/// Connect from `source`; its port 0 is any.
pub(crate) fn connect_from(source: SocketAddr, target: SocketAddr) -> io::Result<TcpStream> {
    let family = if source.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::IpBindAddressNoPort, &true)?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(source))?;
    connect(fd.as_raw_fd(), &SockaddrStorage::from(target))?;
    Ok(fd.into())
}

pub(crate) fn get_from(source: SocketAddr, target: SocketAddr, path: &str) -> io::Result<Answer> {
    let stream = connect_from(source, target)?;
    http::exchange(stream, &format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"))
}
