//! Kubernetes' termination message: the reason of the end where `kubectl describe` shows it.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use nix::libc;

/// The kubelet shows at most so much.
const MAX: usize = 4096;

/// Write one line to `/dev/termination-log`, if the runtime has put it there; it is never created.
pub fn write(line: &str) {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_NOFOLLOW;
    let Ok(mut file) = OpenOptions::new().write(true).custom_flags(flags).open("/dev/termination-log") else {
        return;
    };
    let mut line = line.replace('\n', " ").into_bytes();
    line.truncate(MAX - 1);
    line.push(b'\n');
    // A full disk must not be the reason for another exit code.
    let _ = file.write_all(&line);
}
