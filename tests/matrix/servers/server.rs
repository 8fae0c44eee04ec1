//! A listener of its own, and a thread for each connection.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

fn main() -> std::io::Result<()> {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok()).expect("a port");
    for client in TcpListener::bind(("0.0.0.0", port))?.incoming() {
        let client = client?;
        std::thread::spawn(move || answer(client));
    }
    Ok(())
}

fn answer(mut client: TcpStream) -> std::io::Result<()> {
    client.read(&mut [0; 4096])?;
    let body = format!("pid {}\n", std::process::id());
    write!(client, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}
