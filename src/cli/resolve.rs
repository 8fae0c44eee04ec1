//! Defaults that depend on other options or on where drainit runs, and what cannot go together.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::time::Duration;

use super::RunArgs;
use super::options::{DrainArgs, HealthArgs, PoolArgs, RollArgs};
use crate::config::address::Address;
use crate::config::values::{
    LateResponse, Listen, LogFormat, NodeIpc, ReadyWhen, SignalRule, Sockets, Workers,
};
use crate::config::{Admin, Config, Control, Health, LateAnswer, Log, Sidecars};
use crate::core::config::{
    BreakerRules, Canary, Config as CoreConfig, Kind, LateRules, LbWait, MAX_WORKERS, Restart, RollRules,
    StopMessage,
};
use crate::core::signal::{Signal, SignalTable};

/// More workers than these cannot be steered by client: the kernel limits the length of a program
/// (net.core.optmem_max, 20 KiB).
const BY_CLIENT_MAX: u32 = 128;

/// It is put together once and sent in one piece.
const LATE_BODY_MAX: usize = 4096;

/// What the defaults depend on beyond the options.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// `KUBERNETES_SERVICE_HOST` is set.
    pub in_pod: bool,
    pub stderr_is_terminal: bool,
    pub seed: u64,
    /// How many the workers may keep busy; asked only by `--workers auto`.
    pub processors: fn() -> u32,
    /// What runs a command that is a script.
    pub interpreter: fn(&OsStr) -> Option<OsString>,
    /// `DRAINIT_…` that mean nothing.
    pub unknown_variables: Vec<String>,
}

/// Programs in Node that run the server in a process of its own, and would keep the channel for themselves.
const RUNNERS: [&str; 6] = ["npm", "npx", "yarn", "pnpm", "pnpx", "corepack"];

/// # Errors
/// One line: which option, what is wrong with it, what would be right.
pub fn resolve(args: RunArgs, around: &Surroundings) -> Result<Config, String> {
    let workers = match args.pool.workers {
        Workers::Exactly(workers) => workers,
        Workers::Auto => (around.processors)().clamp(1, MAX_WORKERS),
    };
    let sockets = args.pool.sockets.unwrap_or_else(|| usual_sockets(&args));
    check_sockets(&args.pool, sockets, workers)?;
    check_aim(&args, sockets)?;
    let late = late_answer(&args);
    let kind = if args.pool.workers == Workers::Exactly(1) && args.pool.listen.is_empty() {
        Kind::Single
    } else {
        Kind::Pool
    };
    let restart = args.pool.restart.unwrap_or(match kind {
        Kind::Single => Restart::Never,
        Kind::Pool => Restart::Always,
    });
    let seconds = Duration::from_secs;
    let lb_wait = args.drain.lb_wait.unwrap_or(match around.in_pod {
        true => LbWait { min: seconds(3), max: seconds(15) },
        false => LbWait { min: Duration::ZERO, max: Duration::ZERO },
    });
    let ready_timeout = args
        .readiness
        .ready_timeout
        .map_or((!args.pool.listen.is_empty()).then_some(seconds(30)), |timeout| timeout.0);
    let node_ipc = match args.pool.node_ipc {
        NodeIpc::Auto if kind == Kind::Pool && runs_node(&args.command, around) => NodeIpc::Auto,
        NodeIpc::Auto => NodeIpc::Off,
        said => said,
    };
    let catches_unseen = node_ipc != NodeIpc::Off || names_node(&args.command);
    let stop_message = args.drain.stop_message;
    if stop_message.is_some() && args.pool.node_ipc == NodeIpc::Off {
        return Err(
            "--stop-message reaches nobody with --node-ipc off; takes --node-ipc auto or on".to_owned()
        );
    }
    let deaf = stop_message.is_some() && node_ipc == NodeIpc::Off;
    let idle_wait = args.drain.stop_message_wait.is_some() && stop_message.is_none();
    let watches_alone = kind == Kind::Single && !args.roll.watch.is_empty();
    let core = CoreConfig {
        kind,
        workers,
        version: None,
        restart,
        backoff: args.pool.backoff,
        min_uptime: args.pool.min_uptime,
        max_crashes: args.pool.max_crashes.0,
        roll: roll_rules(&args.roll, args.readiness.min_ready_time),
        breaker: BreakerRules {
            failures: args.roll.breaker_failures,
            window: args.roll.breaker_window,
            reset: args.roll.breaker_reset,
        },
        max_lifetime: args.pool.max_lifetime.0.filter(|_| kind == Kind::Pool),
        ready_timeout,
        min_ready: args.readiness.min_ready,
        watchdog: args.readiness.watchdog.0,
        grace: args.drain.grace.unwrap_or(seconds(if around.in_pod { 30 } else { 10 })),
        margin: args.drain.margin,
        lb_wait,
        lb_quiet: args.drain.lb_quiet,
        lb_checks: args.drain.lb_checks,
        readiness_on_drain: args.drain.readiness_on_drain,
        drain_timeout: args.drain.drain_timeout,
        orphan_grace: args.init.orphan_grace,
        stop_signal: args.drain.stop_signal,
        stop_message: (stop_message.is_some() && !deaf)
            .then_some(StopMessage { wait: args.drain.stop_message_wait }),
        signal_scope: args.init.signal_scope,
        own_queues: sockets != Sockets::Shared,
        signals: signals(kind, &args.init.signal),
        late: late.as_ref().map(|_| LateRules { linger: args.drain.late_linger }),
        remap_exit: args.init.remap_exit.into_iter().collect(),
        seed: around.seed,
    };
    if core.margin >= core.grace {
        return Err(format!(
            "--margin {:?} leaves nothing of --grace {:?}; takes less than the grace period",
            core.margin, core.grace
        ));
    }
    check_names(&args.pool.listen)?;
    let ready_when = args.readiness.ready_when;
    let health = health(args.health)?;
    if core.stop_signal.is_uncatchable() || core.stop_signal == Signal::CHLD {
        return Err(format!(
            "--stop-signal {} asks for nothing; takes one that a worker can catch",
            core.stop_signal
        ));
    }
    if ready_timeout.is_some_and(|timeout| timeout.is_zero()) {
        return Err("--ready-timeout 0 fails every worker at once; takes a longer time or off".to_owned());
    }
    if args.drain.late_body.len() > LATE_BODY_MAX {
        return Err(format!("--late-body is too long; takes at most {LATE_BODY_MAX} bytes"));
    }
    if args.drain.late_timeout.is_zero() {
        return Err("--late-timeout 0 leaves no time for a request; takes a longer one".to_owned());
    }
    if core.watchdog.is_some_and(|every| every.is_zero()) {
        return Err("--watchdog 0 finds every worker hung at once; takes a longer time or off".to_owned());
    }
    if core.roll.cannot_move() {
        return Err(
            "--max-surge 0 and --max-unavailable 0: nobody may come and nobody may go; takes 1 or more of \
                    one of them"
                .to_owned(),
        );
    }
    if args.pool.max_lifetime.0.is_some_and(|lifetime| lifetime.is_zero()) {
        return Err("--max-lifetime 0 replaces every worker at once; takes a longer time or off".to_owned());
    }
    let mut warnings = warnings(&core);
    let half = match (args.roll.canary, args.roll.canary_hold) {
        (Some(_), None) => Some("--canary holds for no time without --canary-hold"),
        (None, Some(_)) => Some("--canary-hold does nothing without --canary"),
        (Some(_), Some(_)) | (None, None) => None,
    };
    warnings.extend(half.map(str::to_owned));
    let max_rss = args.pool.max_rss.0.filter(|_| kind == Kind::Pool);
    let idle = kind == Kind::Single && (args.pool.max_rss.0.is_some() || args.pool.max_lifetime.0.is_some());
    warnings.extend(idle.then(|| {
        "--max-rss and --max-lifetime replace nobody: one worker without --listen has no replacement"
            .to_owned()
    }));
    warnings.extend(deaf.then(|| {
        "--stop-message reaches nobody: workers get an IPC channel in a pool whose COMMAND is Node, or with --node-ipc on"
            .to_owned()
    }));
    let watch = if kind == Kind::Pool { args.roll.watch } else { Vec::new() };
    warnings
        .extend(watches_alone.then(|| "--watch does nothing without a pool, which it would roll".to_owned()));
    warnings.extend(idle_wait.then(|| "--stop-message-wait does nothing without --stop-message".to_owned()));
    warnings.extend(
        around.unknown_variables.iter().map(|name| format!("{name} in the environment is no option")),
    );
    let format = args.admin.log_format.unwrap_or(if around.stderr_is_terminal {
        LogFormat::Text
    } else {
        LogFormat::Json
    });
    Ok(Config {
        core,
        command: args.command,
        listen: args.pool.listen,
        adopt_bind: args.pool.adopt_bind,
        sockets,
        max_rss,
        user: args.pool.user,
        ready_when,
        health,
        node_ipc,
        catches_unseen,
        stop_message,
        end_idle_after: args.drain.end_idle_after.0,
        sidecars: Sidecars {
            wait_for: args.readiness.wait_for,
            wait_for_timeout: args.readiness.wait_for_timeout,
            on_exit_post: args.drain.on_exit_post,
            // What else happens in the margin has to happen, too.
            on_exit_timeout: args.drain.margin / 2,
        },
        prestop_http: args.admin.prestop_http,
        late,
        admin: args.admin.admin.unwrap_or(Admin::Default),
        control: args.admin.control.unwrap_or(Control::OfThisContainer),
        watch,
        parent_death: args.init.parent_death,
        in_pod: around.in_pod,
        scale_with_quota: args.pool.workers == Workers::Auto,
        log: Log { format, level: args.admin.log_level },
        warnings,
    })
}

/// There is nobody to be answered where no socket is drainit's own.
fn late_answer(args: &RunArgs) -> Option<LateAnswer> {
    let DrainArgs { late_response: response, late_body, late_retry_after, late_timeout: timeout, .. } =
        &args.drain;
    (*response != LateResponse::Off && !args.pool.listen.is_empty()).then(|| LateAnswer {
        response: *response,
        body: late_body.clone(),
        retry_after: late_retry_after.0,
        timeout: *timeout,
    })
}

fn roll_rules(roll: &RollArgs, min_ready_time: Duration) -> RollRules {
    let hold = roll.canary_hold.unwrap_or_default();
    RollRules {
        max_surge: roll.max_surge,
        max_unavailable: roll.max_unavailable,
        min_ready_time,
        pause: roll.roll_pause,
        canary: roll.canary.map(|workers| Canary { workers, hold }),
        waits_for_drain: roll.roll_waits_for_drain,
    }
}

fn is_node(program: &OsStr) -> bool {
    matches!(base_name(program).to_str(), Some("node" | "nodejs"))
}

/// `docker-entrypoint.sh node …`, `sh -c 'exec node …'`, `/usr/bin/env node`.
fn names_node(command: &[OsString]) -> bool {
    let mut words = command.iter().filter_map(|word| word.to_str()).flat_map(str::split_whitespace);
    words.any(|word| is_node(OsStr::new(word)))
}

fn runs_node(command: &[OsString], around: &Surroundings) -> bool {
    let Some(command) = command.first() else { return false };
    let is_runner = RUNNERS.iter().any(|runner| base_name(command) == OsStr::new(runner));
    is_node(command) || !is_runner && (around.interpreter)(command).is_some_and(|program| is_node(&program))
}

fn base_name(program: &OsStr) -> &OsStr {
    Path::new(program).file_name().unwrap_or(program)
}

fn signals(kind: Kind, rules: &[SignalRule]) -> SignalTable {
    let mut table = match kind {
        Kind::Single => SignalTable::single(),
        Kind::Pool => SignalTable::pool(),
    };
    for rule in rules {
        table.set(rule.signal, rule.disposition);
    }
    table
}

fn check_names(listen: &[Listen]) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    match listen.iter().filter_map(|listen| listen.name.as_deref()).find(|name| !seen.insert(*name)) {
        Some(name) => Err(format!("--listen names two sockets '{name}'; takes a name once")),
        None => Ok(()),
    }
}

/// Told to stop, uvicorn accepts for another tenth of a second and closes what it has not read then. A queue of its own
/// has nothing for it any more by that time.
fn usual_sockets(args: &RunArgs) -> Sockets {
    let listen = &args.pool.listen;
    let may_have_queues = !listen.is_empty() && !listen.iter().any(is_unix);
    if may_have_queues && runs_uvicorn(&args.command) { Sockets::PerWorker } else { Sockets::Shared }
}

/// By itself, by `python -m`, as gunicorn's worker class, by FastAPI's own command.
fn runs_uvicorn(command: &[OsString]) -> bool {
    let named = |word: &OsString| word.to_str().is_some_and(|word| word.contains("uvicorn"));
    command.iter().any(named)
        || command.first().is_some_and(|command| base_name(command) == OsStr::new("fastapi"))
}

fn is_unix(listen: &Listen) -> bool {
    matches!(listen.address, Address::Unix(_) | Address::Abstract(_))
}

/// Only a TCP address has a queue for each worker.
fn check_sockets(pool: &PoolArgs, sockets: Sockets, workers: u32) -> Result<(), String> {
    let mode = match sockets {
        Sockets::Shared => return Ok(()),
        Sockets::PerWorker => "per-worker",
        Sockets::Sticky => "sticky",
    };
    if pool.listen.is_empty() {
        return Err(format!("--sockets {mode} needs a --listen: there is no socket of drainit's"));
    }
    if let Some(listen) = pool.listen.iter().find(|listen| is_unix(listen)) {
        let address = &listen.address;
        return Err(format!("--sockets {mode} takes TCP addresses; --listen {address} can only be shared"));
    }
    if sockets == Sockets::Sticky && workers > BY_CLIENT_MAX {
        return Err(format!("--sockets sticky takes at most {BY_CLIENT_MAX} workers, not {workers}"));
    }
    Ok(())
}

/// Whether a check can reach the one worker it is meant for.
fn check_aim(args: &RunArgs, sockets: Sockets) -> Result<(), String> {
    let shared = sockets == Sockets::Shared;
    let cannot = |option: &str, instead: &str| {
        Err(format!(
            "--{option} without a port asks the pool's own socket, which the workers share, so no single one can be \
             asked; takes --sockets per-worker or sticky, or {instead}"
        ))
    };
    if let ReadyWhen::Check(check) = &args.readiness.ready_when
        && check.is_aimed()
        && shared
    {
        return cannot("ready-when", "tcp=:PORT, http=:PORT/PATH, exec=CMD or notify");
    }
    match &args.health.check {
        Some(check) if check.is_aimed() && shared => cannot("check", "exec=CMD, which knows DRAINIT_SLOT"),
        Some(check) if check.port().is_some() && args.pool.workers != Workers::Exactly(1) => {
            Err("--check on a port of its own asks whichever worker has it; takes one worker, or tcp or http=/PATH \
                 with --sockets per-worker or sticky, or exec=CMD"
                .to_owned())
        }
        _ => Ok(()),
    }
}

fn health(args: HealthArgs) -> Result<Option<Health>, String> {
    let HealthArgs { check, check_every: every, check_timeout: timeout, check_failures: failures } = args;
    for (name, time) in [("every", every), ("timeout", timeout)] {
        if time.is_zero() {
            return Err(format!("--check-{name} 0 leaves no time; takes a longer one"));
        }
    }
    Ok(check.map(|check| Health { check, every, timeout, failures }))
}

fn warnings(core: &CoreConfig) -> Vec<String> {
    let effective = core.effective_lb_wait();
    let cut = (effective.max < core.lb_wait.max).then(|| {
        format!(
            "--lb-wait is cut from {:?} to {:?}: of --grace {:?} less --margin {:?} a quarter, at least 500ms, is left for the workers",
            core.lb_wait.max, effective.max, core.grace, core.margin
        )
    });
    let least = core.min_ready.of(core.workers);
    let unreachable = (least > core.workers).then(|| {
        format!(
            "--min-ready {least} is more than --workers {}: never ready before the pool is scaled up",
            core.workers
        )
    });
    cut.into_iter().chain(unreachable).collect()
}
