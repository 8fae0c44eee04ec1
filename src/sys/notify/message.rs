//! The text of one datagram, as sd_notify(3) defines it and systemd reads it: assignments one a line, of each variable
//! the first, what is not known skipped. No byte in it can do more harm than not to be understood.

use std::time::Duration;

use crate::core::types::Pid;
use crate::core::word::{Lifecycle, Ping, Word};

/// Of `STATUS=`, in characters: a line for people.
pub const STATUS_MAX: usize = 256;

/// An interval or an extension beyond this means for ever, as far as any process is concerned.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// A watchdog that wants to hear more often than this would find everybody hung.
const WATCHDOG_LEAST: Duration = Duration::from_millis(1);

/// What a datagram says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    pub word: Word,
    /// The descriptor that came along is to be closed once everything before has been taken in.
    pub barrier: bool,
    /// The descriptors that came along are to be stored.
    pub stores: bool,
}

/// What is not text, or holds a NUL byte before its end, says nothing.
pub fn parse(datagram: &[u8]) -> Message {
    let datagram = datagram.strip_suffix(b"\0").unwrap_or(datagram);
    if datagram.contains(&0) {
        return Message::default();
    }
    let lines = || datagram.split(|byte| matches!(byte, b'\n' | b'\r')).filter(|line| !line.is_empty());
    let says = |line: &[u8]| lines().any(|said| said == line);
    if says(b"BARRIER=1") {
        // Mixed with anything else it is against the protocol; whoever waits for it is let go nevertheless.
        return Message { barrier: true, ..Message::default() };
    }
    let value = |name: &[u8]| lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(b"="));
    let number = |name: &[u8]| value(name).and_then(unsigned);
    let word = Word {
        // Of several the most final.
        lifecycle: if says(b"STOPPING=1") {
            Some(Lifecycle::Stopping)
        } else if says(b"READY=1") {
            Some(Lifecycle::Ready)
        } else {
            says(b"RELOADING=1").then_some(Lifecycle::Reloading)
        },
        status: value(b"STATUS").and_then(|text| std::str::from_utf8(text).ok()).map(printable),
        main_pid: number(b"MAINPID").and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0).map(Pid),
        extend: number(b"EXTEND_TIMEOUT_USEC").and_then(duration),
        ping: match value(b"WATCHDOG") {
            Some(b"1") => Some(Ping::Alive),
            Some(b"trigger") => Some(Ping::Trigger),
            _ => None,
        },
        watchdog: number(b"WATCHDOG_USEC").and_then(duration).map(|every| every.max(WATCHDOG_LEAST)),
    };
    Message { word, barrier: false, stores: says(b"FDSTORE=1") }
}

/// Decimal digits and nothing else; `None` for what does not fit.
fn unsigned(text: &[u8]) -> Option<u64> {
    if !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// systemd takes neither 0 nor the largest number for a time.
fn duration(microseconds: u64) -> Option<Duration> {
    let meant = (1..u64::MAX).contains(&microseconds);
    meant.then(|| Duration::from_micros(microseconds).min(LONGEST))
}

/// It is shown on terminals and in logs: one line, without anything that changes how the rest of it looks.
fn printable(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{61c}');
    let shown = text.chars().map(|c| if c.is_control() || turns(c) { '?' } else { c });
    shown.take(STATUS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(text: &str) -> Word {
        parse(text.as_bytes()).word
    }

    #[test]
    fn ready_is_found_among_other_assignments() {
        let ready = Some(Lifecycle::Ready);
        assert_eq!(word("READY=1").lifecycle, ready);
        assert_eq!(word("STATUS=up\nREADY=1\n").lifecycle, ready);
        assert_eq!(word("READY=1\0").lifecycle, ready);
        assert_eq!(word("\n\r\n READY=1\rREADY=1").lifecycle, ready);
        for text in ["READY=0", "XREADY=1\nREADY=11\n", "", "READY", "READY=1\0STATUS=x", "ready=1"] {
            assert_eq!(word(text), Word::default(), "{text:?}");
        }
        assert_eq!(parse(b"READY=11\n\xff"), Message::default());
    }

    #[test]
    fn of_several_states_the_most_final_counts() {
        assert_eq!(word("RELOADING=1\nMONOTONIC_USEC=5").lifecycle, Some(Lifecycle::Reloading));
        assert_eq!(word("RELOADING=1\nREADY=1").lifecycle, Some(Lifecycle::Ready));
        assert_eq!(word("STOPPING=1\nREADY=1").lifecycle, Some(Lifecycle::Stopping));
    }

    #[test]
    fn of_an_assignment_made_twice_the_first_counts() {
        assert_eq!(word("STATUS=a\nSTATUS=b").status.as_deref(), Some("a"));
        assert_eq!(word("WATCHDOG=no\nWATCHDOG=1").ping, None);
    }

    #[test]
    fn a_status_is_one_short_line() {
        assert_eq!(word("STATUS=").status.as_deref(), Some(""));
        assert_eq!(word("STATUS=a=b \u{1b}[1m\u{202e}ü").status.as_deref(), Some("a=b ?[1m?ü"));
        assert_eq!(parse(b"STATUS=\xff").word, Word::default());
        let long = word(&format!("STATUS={}", "ä".repeat(1000))).status;
        assert_eq!(long.map(|text| text.chars().count()), Some(STATUS_MAX));
    }

    #[test]
    fn numbers_are_decimal_and_fit() {
        let extend = |value: &str| word(&format!("EXTEND_TIMEOUT_USEC={value}")).extend;
        assert_eq!(extend("1500000"), Some(Duration::from_millis(1500)));
        assert_eq!(extend("007"), Some(Duration::from_micros(7)));
        assert_eq!(extend("18446744073709551614"), Some(LONGEST));
        for value in ["0", "18446744073709551615", "18446744073709551616", "-1", "+1", "1s", "0x10", " 1", ""]
        {
            assert_eq!(extend(value), None, "{value:?}");
        }
        assert_eq!(word("WATCHDOG_USEC=1").watchdog, Some(WATCHDOG_LEAST));
        assert_eq!(word("WATCHDOG_USEC=0").watchdog, None);
        assert_eq!(word("MAINPID=12").main_pid, Some(Pid(12)));
        for value in ["0", "-1", "2147483648", "99999999999999999999"] {
            assert_eq!(word(&format!("MAINPID={value}")).main_pid, None, "{value:?}");
        }
    }

    #[test]
    fn a_barrier_stands_alone() {
        assert_eq!(parse(b"BARRIER=1"), Message { barrier: true, ..Message::default() });
        assert_eq!(parse(b"READY=1\nBARRIER=1\n").word, Word::default());
        assert!(!parse(b"BARRIER=0").barrier);
    }

    #[test]
    fn what_comes_with_descriptors_to_store_counts() {
        let message = parse(b"FDSTORE=1\nFDNAME=x\nREADY=1");
        assert!(message.stores);
        assert_eq!(message.word.lifecycle, Some(Lifecycle::Ready));
    }
}
