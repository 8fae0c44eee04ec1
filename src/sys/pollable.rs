//! Descriptors of ours in tokio's event loop.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::channel::Channel;
use super::notify::NotifySocket;
use super::seccomp::Notifier;
use super::signals::SignalFd;
use super::timer::Timer;
use super::watch::Inotify;

/// A type that owns one descriptor and keeps it until it is dropped.
pub trait OwnsDescriptor: AsRawFd {}

impl OwnsDescriptor for SignalFd {}
impl OwnsDescriptor for Timer {}
impl OwnsDescriptor for Arc<NotifySocket> {}
impl OwnsDescriptor for Notifier {}
impl OwnsDescriptor for Arc<Channel> {}
impl OwnsDescriptor for Arc<Inotify> {}

/// Have the event loop tell when it can be read. That it can be written to would be told too, and at once.
pub fn register<T: OwnsDescriptor>(source: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: the descriptor is open and stays the same for as long as `source` lives.
    Ok(unsafe { AsyncFd::register_with_interest(source, Interest::READABLE) }?)
}
