use std::cell::RefCell;
use std::fs::File;
use std::io::{Error, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::process::Stdio;

use super::wait::{DEADLINE, until, within};

/// A terminal with a person at it. What appears is consumed by [`Pty::expect`], in order.
pub struct Pty {
    master: File,
    slave: File,
    screen: RefCell<String>,
}

impl Pty {
    pub fn open() -> Self {
        let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
        let master = own(unsafe { libc::posix_openpt(flags | libc::O_NONBLOCK) });
        let fd = master.as_raw_fd();
        let mut name = [0; 64];
        let ready = unsafe {
            libc::grantpt(fd) == 0
                && libc::unlockpt(fd) == 0
                && libc::ptsname_r(fd, name.as_mut_ptr(), name.len()) == 0
        };
        assert!(ready, "the other side of a pty: {}", Error::last_os_error());
        let slave = own(unsafe { libc::open(name.as_ptr(), flags) });
        Self { master, slave, screen: RefCell::default() }
    }

    pub fn stdio(&self) -> Stdio {
        self.slave.try_clone().unwrap().into()
    }

    pub fn send(&self, text: &str) {
        (&self.master).write_all(text.as_bytes()).expect("type at the terminal");
    }

    /// Waits for text and forgets all up to its end.
    #[track_caller]
    pub fn expect(&self, text: &str) {
        let found = within(DEADLINE, || {
            let end = self.look().find(text)? + text.len();
            self.screen.borrow_mut().drain(..end);
            Some(())
        });
        assert!(found.is_some(), "no {text:?} on the terminal, which shows {:?}", self.look());
    }

    /// All that has appeared and has not been consumed.
    pub fn look(&self) -> String {
        let mut buffer = [0; 4096];
        let mut screen = self.screen.borrow_mut();
        while let Ok(n @ 1..) = (&self.master).read(&mut buffer) {
            screen.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
        screen.clone()
    }

    pub fn resize(&self, rows: u16, columns: u16) {
        let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        assert_eq!(unsafe { libc::ioctl(self.master.as_raw_fd(), libc::TIOCSWINSZ, &size) }, 0);
    }

    /// The group that the keys' signals go to.
    pub fn foreground_group(&self) -> i64 {
        unsafe { libc::tcgetpgrp(self.master.as_raw_fd()) }.into()
    }

    #[track_caller]
    pub fn wait_for_foreground(&self, group: i64) {
        until(format_args!("group {group} in the foreground"), || {
            (self.foreground_group() == group).then_some(())
        });
    }

    /// Pulls the plug: nobody holds the other end any more.
    pub fn hang_up(self) {
        drop(self.master);
    }
}

fn own(fd: i32) -> File {
    assert!(fd >= 0, "pty: {}", Error::last_os_error());
    unsafe { File::from_raw_fd(fd) }
}
