//! The grammar of values that are words.

use tracing::level_filters::LevelFilter;

use crate::config::endpoint::Endpoint;
use crate::config::values::{AdoptBind, LateResponse, NodeIpc, Sockets};
use crate::config::{Admin, Control, size, values};
use crate::core::config::{MaxCrashes, ReadinessOnDrain, Restart};
use crate::core::types::Scope;

/// `--max-crashes` as clap wants it: an `Option` of its own would mean "not given".
#[derive(Clone, Copy, Debug)]
pub struct CrashLimit(pub Option<MaxCrashes>);

pub(super) fn max_crashes(text: &str) -> Result<CrashLimit, String> {
    values::parse_max_crashes(text).map(CrashLimit)
}

/// `--max-rss`, likewise.
#[derive(Clone, Copy, Debug)]
pub struct SizeLimit(pub Option<u64>);

pub(super) fn max_rss(text: &str) -> Result<SizeLimit, String> {
    if text == "off" { Ok(SizeLimit(None)) } else { size::parse(text).map(|size| SizeLimit(Some(size))) }
}

pub(super) fn adopt_bind(text: &str) -> Result<AdoptBind, String> {
    match text {
        "auto" => Ok(AdoptBind::Auto),
        "on" => Ok(AdoptBind::On),
        "off" => Ok(AdoptBind::Off),
        _ => Err("takes auto, on or off".to_owned()),
    }
}

pub(super) fn sockets(text: &str) -> Result<Sockets, String> {
    match text {
        "shared" => Ok(Sockets::Shared),
        "per-worker" => Ok(Sockets::PerWorker),
        "sticky" => Ok(Sockets::Sticky),
        _ => Err("takes shared, per-worker or sticky".to_owned()),
    }
}

pub(super) fn node_ipc(text: &str) -> Result<NodeIpc, String> {
    match text {
        "auto" => Ok(NodeIpc::Auto),
        "on" => Ok(NodeIpc::On),
        "off" => Ok(NodeIpc::Off),
        _ => Err("takes auto, on or off".to_owned()),
    }
}

pub(super) fn restart(text: &str) -> Result<Restart, String> {
    match text {
        "always" => Ok(Restart::Always),
        "on-failure" => Ok(Restart::OnFailure),
        "never" => Ok(Restart::Never),
        _ => Err("takes always, on-failure or never".to_owned()),
    }
}

pub(super) fn readiness(text: &str) -> Result<ReadinessOnDrain, String> {
    match text {
        "fail" => Ok(ReadinessOnDrain::Fail),
        "keep" => Ok(ReadinessOnDrain::Keep),
        _ => Err("takes fail or keep".to_owned()),
    }
}

pub(super) fn late_response(text: &str) -> Result<LateResponse, String> {
    match text {
        "503" => Ok(LateResponse::Unavailable),
        "reset" => Ok(LateResponse::Reset),
        "off" => Ok(LateResponse::Off),
        _ => Err("takes 503, reset or off".to_owned()),
    }
}

pub(super) fn scope(text: &str) -> Result<Scope, String> {
    match text {
        "leader" => Ok(Scope::Leader),
        "group" => Ok(Scope::Group),
        _ => Err("takes leader or group".to_owned()),
    }
}

/// As tracing spells them, without the numbers and the empty string that it takes as well.
pub(super) fn log_level(text: &str) -> Result<LevelFilter, String> {
    match text {
        "error" | "warn" | "info" | "debug" | "trace" | "off" => text.parse().map_err(|_| text.to_owned()),
        _ => Err("takes error, warn, info, debug, trace or off".to_owned()),
    }
}

pub(super) fn admin(text: &str) -> Result<Admin, String> {
    if text == "off" { Ok(Admin::Off) } else { text.parse().map(Admin::At) }
}

pub(super) fn control(text: &str) -> Result<Control, String> {
    match text {
        "off" => Ok(Control::Off),
        "" | "@" => Err("takes a path, @NAME or off".to_owned()),
        _ => Ok(Control::At(Endpoint::parse(text))),
    }
}

pub(super) fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("takes NAME=VALUE".to_owned()),
    }
}
