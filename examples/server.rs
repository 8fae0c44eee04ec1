//! A small HTTP server that knows nothing of drainit: it serves the socket it has inherited as descriptor 3 and
//! finishes on SIGTERM, as a server should. `/slow` takes 100 ms, everything else answers at once.
#![allow(clippy::disallowed_methods, reason = "a program of its own, outside the architecture of drainit")]

use std::net::TcpListener as StdListener;
use std::os::fd::FromRawFd;
use std::time::Duration;

use futures_util::StreamExt;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook_tokio::Signals;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let listener = inherited()?;
    let (busy, mut idle) = mpsc::channel::<()>(1);
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    let busy = busy.clone();
                    tokio::spawn(async move {
                        let _ = timeout(Duration::from_secs(30), serve(stream)).await;
                        drop(busy);
                    });
                }
            }
            _ = signals.next() => break,
        }
    }
    // Accept no more, finish what has been accepted: `recv` ends when the last one has dropped its sender.
    drop((listener, busy));
    idle.recv().await;
    Ok(())
}

fn inherited() -> std::io::Result<TcpListener> {
    // SAFETY: by the convention of LISTEN_FDS, descriptor 3 is a listening socket, and it is ours.
    #[expect(unsafe_code, reason = "the way in which a socket is inherited")]
    let listener = unsafe { StdListener::from_raw_fd(3) };
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

async fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    if request.starts_with(b"GET /slow") {
        sleep(Duration::from_millis(100)).await;
    }
    let body = format!("{}\n", std::process::id());
    let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes()).await?;
    stream.shutdown().await
}
