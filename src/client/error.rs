//! Why a question has no answer.

use std::error::Error;
use std::fmt;
use std::time::Duration;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientError {
    /// There is to be no control socket.
    Off,
    /// The control socket is not where it should be; these are there.
    NoneFound(Vec<String>),
    /// Nobody listens there, or not to us.
    Connect(String),
    /// The connection ended before the answer did: drainit has exited.
    Ended,
    /// No answer in time.
    Late(Duration),
    /// The question cannot be put, or the answer not be taken.
    Unusable(String),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("the control socket is off (DRAINIT_CONTROL)"),
            Self::NoneFound(names) if names.is_empty() => f.write_str(
                "no drainit found to ask; DRAINIT_CONTROL names its control socket where it is a file",
            ),
            Self::NoneFound(names) => {
                write!(
                    f,
                    "no drainit found in this container; set DRAINIT_CONTROL to one of: {}",
                    names.join(", ")
                )
            }
            Self::Connect(why) => f.write_str(why),
            Self::Ended => f.write_str("drainit ended the connection without an answer"),
            Self::Late(deadline) => write!(f, "no answer in {deadline:?}"),
            Self::Unusable(why) => f.write_str(why),
        }
    }
}

impl Error for ClientError {}
