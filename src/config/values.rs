//! The values of single options, each with its own grammar.

use std::str::FromStr;
use std::time::Duration;

use serde::de::IgnoredAny;

use super::address::Address;
use super::duration;
use crate::core::config::{Backoff, Count, LbWait, MAX_WORKERS, MaxCrashes};
use crate::core::signal::{Disposition, Signal};

/// `[NAME=]ADDR`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    pub name: Option<String>,
    pub address: Address,
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, address) = match text.split_once('=') {
            Some((name, address)) => (Some(name), address),
            None => (None, text),
        };
        // sd_listen_fds(3): printable ASCII but the colon, which separates the names.
        let usable =
            |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
        if let Some(name) = name.filter(|name| !usable(name)) {
            return Err(format!("'{name}' is no name; takes printable ASCII without ':'"));
        }
        Ok(Self { name: name.map(str::to_owned), address: address.parse()? })
    }
}

/// When one worker counts as ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadyWhen {
    /// It accepts on drainit's socket or, where there is none, has a listening socket of its own.
    Listening,
    /// It has sent READY=1.
    Notify,
    /// It has been started.
    Started,
    /// It passes this check.
    Check(Check),
}

/// How a worker is asked how it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// A connection is accepted: on this local port, or on the pool's own socket by this one worker.
    Tcp(Option<u16>),
    /// A GET is answered with 2xx or 3xx.
    Http { port: Option<u16>, path: String },
    /// This command exits with 0.
    Exec(Vec<String>),
}

impl Check {
    /// On the pool's own socket: some mode of `--sockets` has to lead to each worker.
    pub fn is_aimed(&self) -> bool {
        matches!(self, Self::Tcp(None) | Self::Http { port: None, .. })
    }

    /// On a port of its own.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp(port) | Self::Http { port, .. } => *port,
            Self::Exec(_) => None,
        }
    }
}

/// How the workers share the sockets of `--listen`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sockets {
    /// One accept queue for all.
    Shared,
    /// One queue a worker.
    PerWorker,
    /// One queue a worker, and each client address always to the same one.
    Sticky,
}

impl FromStr for ReadyWhen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "listening" => Ok(Self::Listening),
            "notify" => Ok(Self::Notify),
            "started" => Ok(Self::Started),
            _ => check(text, "listening, notify, started, ").map(Self::Check),
        }
    }
}

impl FromStr for Check {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        check(text, "")
    }
}

/// `others`: what else can be meant.
fn check(text: &str, others: &str) -> Result<Check, String> {
    let port = |text: &str| {
        let port = text.parse::<u16>().ok().filter(|port| *port != 0);
        port.ok_or_else(|| format!("'{text}' is no port; takes 1 to 65535"))
    };
    let (kind, value) = text.split_once('=').map_or((text, None), |(kind, value)| (kind, Some(value)));
    match (kind, value) {
        ("tcp", None) => Ok(Check::Tcp(None)),
        ("tcp", Some(value)) => match value.strip_prefix(':') {
            Some(text) => port(text).map(|port| Check::Tcp(Some(port))),
            None => Err("takes tcp or tcp=:PORT".to_owned()),
        },
        ("http", Some(value)) => {
            let (own_port, path) = match value.strip_prefix(':') {
                Some(value) => {
                    let (text, path) = value.split_at(value.find('/').unwrap_or(value.len()));
                    (Some(port(text)?), if path.is_empty() { "/" } else { path })
                }
                None => (None, value),
            };
            if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(format!(
                    "'{path}' is no path; takes one from / on, of printable ASCII, the rest percent-encoded"
                ));
            }
            Ok(Check::Http { port: own_port, path: path.to_owned() })
        }
        ("exec", Some(command)) => match shell_words::split(command) {
            Ok(words) if !words.is_empty() => Ok(Check::Exec(words)),
            Ok(_) => Err("exec takes a command".to_owned()),
            Err(error) => Err(format!("exec={command}: {error}")),
        },
        _ => Err(format!(
            "'{text}' is unknown; takes {others}tcp, tcp=:PORT, http=/PATH, http=:PORT/PATH or exec=CMD"
        )),
    }
}

/// `SIG=ACTION`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalRule {
    pub signal: Signal,
    pub disposition: Disposition,
}

impl FromStr for SignalRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const ACTIONS: &str =
            "forward, ignore, drain, restart, scale-up, scale-down or another signal's name";
        let (signal, action) = text
            .split_once('=')
            .ok_or_else(|| format!("'{text}' has no action; takes SIG=ACTION, ACTION: {ACTIONS}"))?;
        let signal: Signal = signal.parse()?;
        if signal.is_uncatchable() || signal == Signal::CHLD {
            return Err(format!("{signal} cannot be handled"));
        }
        let disposition = match action {
            "forward" => Disposition::Forward,
            "ignore" => Disposition::Ignore,
            "drain" => Disposition::Drain,
            "restart" => Disposition::Restart,
            "scale-up" => Disposition::ScaleUp,
            "scale-down" => Disposition::ScaleDown,
            other => Disposition::Rewrite(
                other.parse().map_err(|_| format!("'{other}' is no action; takes {ACTIONS}"))?,
            ),
        };
        Ok(Self { signal, disposition })
    }
}

/// `FROM=TO`
///
/// # Errors
/// What a pair of exit codes looks like.
pub fn parse_remap(text: &str) -> Result<(u8, u8), String> {
    text.split_once('=').and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?))).ok_or_else(
        || format!("'{text}' is no pair of exit codes; takes FROM=TO, each from 0 to 255, such as 143=0"),
    )
}

/// `--workers`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    Exactly(u32),
    /// As many as there are processors to be had, now and when that changes.
    Auto,
}

impl FromStr for Workers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            _ => parse_workers(text).map(Self::Exactly).map_err(|error| format!("{error} or auto")),
        }
    }
}

/// # Errors
/// What a number of workers looks like.
pub fn parse_workers(text: &str) -> Result<u32, String> {
    text.parse()
        .ok()
        .filter(|workers| (1..=MAX_WORKERS).contains(workers))
        .ok_or_else(|| format!("'{text}' is no number of workers; takes 1 to {MAX_WORKERS}"))
}

/// # Errors
/// What a count looks like.
pub fn parse_count(text: &str) -> Result<Count, String> {
    let wrong = || format!("'{text}' is neither a number nor a percentage; takes N or N% (0% to 100%)");
    match text.strip_suffix('%') {
        Some(percent) => {
            percent.parse().ok().filter(|percent| *percent <= 100).map(Count::Percent).ok_or_else(wrong)
        }
        None => text.parse().map(Count::Workers).map_err(|_| wrong()),
    }
}

/// # Errors
/// What bounds look like.
pub fn parse_backoff(text: &str) -> Result<Backoff, String> {
    let (min, max) = duration::parse_range(text)?;
    Ok(Backoff { min, max })
}

/// # Errors
/// What bounds look like.
pub fn parse_lb_wait(text: &str) -> Result<LbWait, String> {
    let (min, max) = duration::parse_range(text)?;
    Ok(LbWait { min, max })
}

/// # Errors
/// What a limit looks like.
pub fn parse_max_crashes(text: &str) -> Result<Option<MaxCrashes>, String> {
    if text == "off" {
        return Ok(None);
    }
    let wrong = || format!("'{text}' is no limit; takes N/WINDOW such as 5/60s, or off");
    let (count, window) = text.split_once('/').ok_or_else(wrong)?;
    let window = duration::parse(window)?;
    Ok(Some(MaxCrashes {
        count: count.parse().ok().filter(|count| *count <= 100_000).ok_or_else(wrong)?,
        window,
    }))
}

/// Whether servers that bind for themselves are given drainit's sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdoptBind {
    /// Where there is a `--listen` and the kernel permits it.
    Auto,
    On,
    Off,
}

/// Whether workers get Node's IPC channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeIpc {
    /// In a pool whose command is Node.
    Auto,
    On,
    Off,
}

/// What asks a worker to finish on its IPC channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopMessage {
    /// The end of the channel.
    Disconnect,
    /// A JSON document, in one line.
    Json(String),
}

impl FromStr for StopMessage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "disconnect" {
            return Ok(Self::Disconnect);
        }
        match serde_json::from_str::<IgnoredAny>(text) {
            // Between its tokens, where alone they can be, they mean nothing; on the channel they end a message.
            Ok(_) => Ok(Self::Json(text.trim().replace(['\n', '\r'], " "))),
            Err(_) => Err(format!(
                "'{text}' is no JSON; takes disconnect, or JSON with its quotation marks: '\"shutdown\"', \
                 '{{\"type\":\"shutdown\"}}'"
            )),
        }
    }
}

/// What becomes of connections that no worker accepts any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LateResponse {
    /// They are answered, each in what it speaks.
    Unavailable,
    Reset,
    Off,
}

/// A duration, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeout(pub Option<Duration>);

impl FromStr for Timeout {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" { Ok(Self(None)) } else { duration::parse(text).map(|timeout| Self(Some(timeout))) }
    }
}

/// How drainit's log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_before_the_address() {
        let listen: Listen = "web=127.0.0.1:80".parse().unwrap();
        assert_eq!(
            (listen.name.as_deref(), listen.address),
            (Some("web"), Address::Tcp(([127, 0, 0, 1], 80).into()))
        );
        assert_eq!("8080".parse::<Listen>().unwrap().name, None);
        assert!("=80".parse::<Listen>().is_err());
        assert!("a:b=80".parse::<Listen>().is_err());
    }

    #[test]
    fn every_way_to_be_ready() {
        assert_eq!("listening".parse(), Ok(ReadyWhen::Listening));
        let check = |text: &str| match text.parse() {
            Ok(ReadyWhen::Check(check)) => check,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!((check("tcp"), check("tcp=:80")), (Check::Tcp(None), Check::Tcp(Some(80))));
        assert_eq!(check("http=:80/x?y"), Check::Http { port: Some(80), path: "/x?y".to_owned() });
        assert_eq!(check("http=:80"), Check::Http { port: Some(80), path: "/".to_owned() });
        assert_eq!(check("http=/x"), Check::Http { port: None, path: "/x".to_owned() });
        let exec = Check::Exec(["a", "b c", "$d"].map(str::to_owned).into());
        assert_eq!(check("exec=a 'b c' $d"), exec);
        for text in [
            "",
            "ready",
            "tcp=80",
            "tcp=:0",
            "http",
            "http=x",
            "http=:/x",
            "http=:80/ä",
            "exec=",
            "exec='",
            "notify=1",
        ] {
            assert!(text.parse::<ReadyWhen>().is_err(), "{text}");
        }
    }

    #[test]
    fn signal_rules() {
        let rule: SignalRule = "TERM=QUIT".parse().unwrap();
        assert_eq!(rule.disposition, Disposition::Rewrite(Signal::new(3).unwrap()));
        assert!("USR1=drain".parse::<SignalRule>().is_ok());
        for text in ["TERM", "KILL=ignore", "CHLD=forward", "NOPE=drain", "TERM=explode", "TERM="] {
            assert!(text.parse::<SignalRule>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_stop_message_is_json_in_one_line() {
        let json = |text: &str| Ok(StopMessage::Json(text.to_owned()));
        assert_eq!("disconnect".parse(), Ok(StopMessage::Disconnect));
        assert_eq!("\"disconnect\"".parse(), json("\"disconnect\""));
        assert_eq!(" {\n\"type\": \"a\\n\"}\n".parse(), json("{ \"type\": \"a\\n\"}"));
        for text in ["", "shutdown", "Disconnect", "{type:'shutdown'}", "\"a\" \"b\"", "{", "\"a\nb\""] {
            assert!(text.parse::<StopMessage>().is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_have_bounds() {
        assert!(
            parse_workers("0").is_err() && parse_workers("1025").is_err() && parse_workers("auto").is_err()
        );
        assert!(parse_count("101%").is_err() && parse_count("-1").is_err());
        assert!(parse_remap("256=0").is_err() && parse_remap("143").is_err());
        assert!(parse_max_crashes("5").is_err() && parse_max_crashes("5/x").is_err());
        assert!(matches!(parse_max_crashes("off"), Ok(None)));
    }
}
