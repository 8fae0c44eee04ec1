//! The subcommands' side: asks a running drainit over its control socket and tells people what it said.
//!
//! Needs nothing but the binary itself: no shell, no curl, no files. Each verb returns its exit code.

mod ask;
mod endpoint;
mod error;
mod progress;
mod restart;
mod rolls;
mod status;
#[cfg(test)]
mod tests;
mod timeline;
mod verbs;

pub use ask::{Answer, ask};
pub use endpoint::find;
pub use error::ClientError;
pub use restart::{abort, restart};
pub use status::{status, watch};
pub use verbs::{Probe, prestop, probe, scale};

use std::io::{self, Write};
use std::time::Duration;

/// It is so; it is done.
const OK: u8 = 0;
/// It is not so; it was refused.
const NO: u8 = 1;
/// There is nobody to ask, or no answer to be understood.
pub const CANNOT_ASK: u8 = 2;

/// For what drainit answers at once.
const DEADLINE: Duration = Duration::from_secs(10);

/// To stdout, whether anybody reads it or not.
fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// To stderr, likewise.
fn complain(why: impl std::fmt::Display) -> u8 {
    let _ = writeln!(io::stderr(), "drainit: {why}");
    CANNOT_ASK
}

/// What answered, but not as drainit does.
fn misunderstood(answer: &Answer) -> u8 {
    complain(format_args!("answered {}: {}", answer.status, answer.body.trim_end()))
}
