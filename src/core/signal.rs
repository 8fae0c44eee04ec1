//! Signals by number and name, real-time ones included, and what drainit does with each.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// A Linux signal, 1 to 64.
///
/// `nix::Signal` has no real-time signals, and a child killed by one makes its `waitpid` fail after the
/// child has been reaped; hence a type of our own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(u8);

// signal(7), "Standard signals": x86, ARM and most others agree on these numbers.
const NAMES: [(&str, u8); 33] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
    ("IOT", 6),
    ("POLL", 29),
];

impl Signal {
    pub const HUP: Self = Self(1);
    pub const INT: Self = Self(2);
    pub const KILL: Self = Self(9);
    pub const USR2: Self = Self(12);
    pub const TERM: Self = Self(15);
    pub const CHLD: Self = Self(17);
    pub const CONT: Self = Self(18);
    pub const STOP: Self = Self(19);
    pub const TSTP: Self = Self(20);
    pub const TTIN: Self = Self(21);
    pub const TTOU: Self = Self(22);
    /// The first real-time signal as programs see it: glibc keeps 32 and 33 for itself.
    pub const RTMIN: Self = Self(34);
    pub const RTMAX: Self = Self(64);

    /// The signal of that number, where there is one.
    pub const fn new(number: i32) -> Option<Self> {
        if number >= 1 && number <= 64 { Some(Self(number as u8)) } else { None }
    }

    pub const fn number(self) -> i32 {
        self.0 as i32
    }

    /// Queued by the kernel one by one, where standard signals coalesce. 32 and 33 are queued as well.
    pub const fn is_realtime(self) -> bool {
        self.0 >= 32
    }

    /// KILL and STOP: no process can catch, block or ignore them.
    pub const fn is_uncatchable(self) -> bool {
        matches!(self, Self::KILL | Self::STOP)
    }

    /// Stops a process from the terminal: TSTP, TTIN and TTOU.
    pub const fn is_terminal_stop(self) -> bool {
        matches!(self, Self::TSTP | Self::TTIN | Self::TTOU)
    }

    /// Whether it ends a process that does nothing about it: signal(7).
    pub const fn ends_by_default(self) -> bool {
        // CHLD, CONT, URG and WINCH are ignored.
        !matches!(self.0, 17 | 18 | 23 | 28) && !self.is_terminal_stop() && self.0 != Self::STOP.0
    }

    /// Every signal there is.
    pub fn all() -> impl Iterator<Item = Self> {
        (1..=64).map(Self)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((name, _)) = NAMES.iter().find(|(_, number)| *number == self.0) {
            return write!(f, "SIG{name}");
        }
        match self.0 {
            34 => f.write_str("SIGRTMIN"),
            64 => f.write_str("SIGRTMAX"),
            35..=63 => write!(f, "SIGRTMIN+{}", self.0 - 34),
            number => write!(f, "signal {number}"),
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Signal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for Signal {
    type Err = String;

    /// `TERM`, `SIGTERM`, `term`, `15`, `RTMIN+3`, `RTMAX-1`.
    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || {
            format!(
                "'{text}' is not a signal; takes a name such as TERM, a number from 1 to 64, RTMIN+n or RTMAX-n"
            )
        };
        if let Ok(number) = text.parse::<i32>() {
            return Self::new(number).ok_or_else(unknown);
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
            return Ok(Self(*number));
        }
        let offset =
            |digits: &str| if digits.is_empty() { Some(0) } else { digits.get(1..)?.parse::<i32>().ok() };
        let number = if let Some(rest) =
            name.strip_prefix("RTMIN").filter(|rest| rest.is_empty() || rest.starts_with('+'))
        {
            offset(rest).map(|n| Self::RTMIN.number() + n)
        } else if let Some(rest) =
            name.strip_prefix("RTMAX").filter(|rest| rest.is_empty() || rest.starts_with('-'))
        {
            offset(rest).map(|n| Self::RTMAX.number() - n)
        } else {
            None
        };
        number
            .filter(|n| (Self::RTMIN.number()..=Self::RTMAX.number()).contains(n))
            .and_then(Self::new)
            .ok_or_else(unknown)
    }
}

/// What drainit does when a signal reaches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Pass it on to every worker.
    Forward,
    /// Drop it.
    Ignore,
    /// Start the drain, or move it on.
    Drain,
    /// Replace every worker, one after the other.
    Restart,
    /// One worker more.
    ScaleUp,
    /// One worker less, never below one.
    ScaleDown,
    /// Pass another signal on in its place.
    Rewrite(Signal),
}

/// The disposition of every signal.
#[derive(Clone, Debug)]
pub struct SignalTable([Disposition; 65]);

impl SignalTable {
    /// One worker without a socket of drainit's: everything is the worker's, as under tini; TERM and INT drain.
    pub fn single() -> Self {
        let mut table = Self([Disposition::Forward; 65]);
        table.set(Signal::TERM, Disposition::Drain);
        table.set(Signal::INT, Disposition::Drain);
        table
    }

    /// A pool: HUP and USR2 roll, TTIN and TTOU scale.
    pub fn pool() -> Self {
        let mut table = Self::single();
        table.set(Signal::TTIN, Disposition::ScaleUp);
        table.set(Signal::TTOU, Disposition::ScaleDown);
        table.set(Signal::HUP, Disposition::Restart);
        table.set(Signal::USR2, Disposition::Restart);
        table
    }

    pub fn set(&mut self, signal: Signal, disposition: Disposition) {
        if let Some(entry) = self.0.get_mut(usize::from(signal.0)) {
            *entry = disposition;
        }
    }

    pub fn get(&self, signal: Signal) -> Disposition {
        self.0.get(usize::from(signal.0)).copied().unwrap_or(Disposition::Ignore)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_name_that_parses_back() {
        for signal in Signal::all().filter(|s| !matches!(s.number(), 32 | 33)) {
            assert_eq!(signal.to_string().parse(), Ok(signal));
            assert_eq!(signal.number().to_string().parse(), Ok(signal));
        }
    }

    #[test]
    fn names_are_taken_in_every_usual_spelling() {
        for text in ["TERM", "term", "SIGTERM", "sigterm", "15"] {
            assert_eq!(text.parse(), Ok(Signal::TERM), "{text}");
        }
        assert_eq!("RTMIN+2".parse(), Ok(Signal(36)));
        assert_eq!("SIGRTMAX-1".parse(), Ok(Signal(63)));
        assert_eq!("RTMIN".parse(), Ok(Signal(34)));
    }

    #[test]
    fn what_is_no_signal_is_refused() {
        for text in ["", "0", "65", "-1", "TERMINATE", "RTMIN-1", "RTMIN+31", "RTMAX+1", "RTMIN+", "RTMINX"] {
            assert!(text.parse::<Signal>().is_err(), "{text}");
        }
    }
}
