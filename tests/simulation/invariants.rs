//! What holds after every step of every history, by name.

#[path = "invariants/rolls.rs"]
mod rolls;

pub(crate) use rolls::{PROMISES, ROLLS};

use std::time::Duration;

use drainit::core::config::{Kind, MAX_WORKERS, ReadinessOnDrain, Restart};
use drainit::core::event::{Action, Command, Event, Notice, Outcome, QuietEnd};
use drainit::core::signal::{Disposition, Signal};
use drainit::core::snapshot::{Phase, WorkerState};
use drainit::core::types::{Scope, WorkerId};

use super::books::Books;
use super::records::{Purpose, Record, Stage, Step};

/// How long after the hard deadline the kernel gets to hand over the dead.
const KILL_PATIENCE: Duration = Duration::from_millis(100);

/// The same after the sweep's KILL, where the hard deadline is further away.
const SWEEP_PATIENCE: Duration = Duration::from_secs(1);

pub(crate) type Verdict = Result<(), String>;

pub(crate) type Check = fn(&Books, &Step<'_>) -> Verdict;

pub(crate) const INVARIANTS: &[(&str, Check)] = &[
    ("exits within the budget", exits_within_the_budget),
    ("never exits over the living", never_exits_over_the_living),
    ("ready means serving", ready_means_serving),
    ("started once enough workers are ready", started_once_enough_are_ready),
    ("unready for the LB wait before the stop", unready_before_the_stop),
    ("the wait ends", the_wait_ends),
    ("ready workers are not taken away", ready_workers_are_not_taken_away),
    ("everybody has a place", everybody_has_a_place),
    ("a replacement comes first", a_replacement_comes_first),
    ("silence is noticed", silence_is_noticed),
    ("a stop has a reason", a_stop_has_a_reason),
    ("a stop reaches everybody", a_stop_reaches_everybody),
    ("the queue comes first", the_queue_comes_first),
    ("the message comes first", the_message_comes_first),
    ("the signal follows its message", the_signal_follows_its_message),
    ("preStop is advice", prestop_is_advice),
    ("a hook returns with the LB wait", a_hook_returns_with_the_lb_wait),
    ("a crash loop ends it", a_crash_loop_ends_it),
    ("every spawn is counted", every_spawn_is_counted),
    ("one record for each worker", one_record_for_each_worker),
    ("signals reach the living only", signals_reach_the_living_only),
    ("the timeout is in the future", the_timeout_is_in_the_future),
    ("every request gets one reply", every_request_gets_one_reply),
    ("KILL waits for the deadline", kill_waits_for_the_deadline),
    ("deadlines are kept", deadlines_are_kept),
    ("a straggler is ended late", a_straggler_is_ended_late),
    ("whoever is killed is counted once", whoever_is_killed_is_counted_once),
    ("the exit code tells", the_exit_code_tells),
    ("vacancies are filled within the back-off", vacancies_are_filled_within_the_backoff),
    ("the size is what was asked for", the_size_is_what_was_asked_for),
    ("nobody is spawned in the end", nobody_is_spawned_in_the_end),
    ("a signal is forwarded to each once", a_signal_is_forwarded_to_each_once),
    ("phases go forward", phases_go_forward),
    ("Exit is the last action", exit_is_the_last_action),
    ("the sweep is patient", the_sweep_is_patient),
    ("ends with the last process", ends_with_the_last_process),
];

fn demand(holds: bool, otherwise: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(otherwise()) }
}

/// Whatever the workers do; a clock that jumped delays it by the jump and no more.
fn exits_within_the_budget(books: &Books, _: &Step<'_>) -> Verdict {
    let (Some(committed), Some(hard)) = (books.committed, books.hard_deadline()) else { return Ok(()) };
    let limit = hard.max(committed) + KILL_PATIENCE + books.jumped;
    let exited = books.exit.is_some();
    demand(if exited { books.now <= limit } else { books.now < limit }, || {
        format!("the limit was {limit:?}, the signal came at {committed:?}")
    })
}

/// Past the hard deadline it may, when everybody has been killed.
fn never_exits_over_the_living(books: &Books, _: &Step<'_>) -> Verdict {
    if books.exit.is_none() || books.refused.is_some() {
        return Ok(());
    }
    let past_hard = books.hard_deadline().is_some_and(|hard| hard <= books.now);
    let spared =
        books.workers.iter().find(|(_, worker)| !past_hard || (worker.pid.is_some() && !worker.killed));
    demand(spared.is_none(), || format!("{spared:?} lives, past the hard deadline: {past_hard}"))
}

fn ready_means_serving(books: &Books, step: &Step<'_>) -> Verdict {
    let (after, keeps) = (step.after, books.config.readiness_on_drain == ReadinessOnDrain::Keep);
    let allowed = match after.phase {
        Phase::Serving => true,
        Phase::LameDuck => keeps && after.started,
        Phase::Starting | Phase::Draining | Phase::Killing | Phase::Exited => false,
    };
    let ready = books.ready();
    demand(after.ready_workers == ready, || format!("{} ready, not {ready}", after.ready_workers))?;
    let min_ready = books.config.min_ready.of(books.desired);
    demand(after.ready == (allowed && ready >= min_ready), || {
        format!("{ready} of {min_ready} in {:?}, ready says {}", after.phase, after.ready)
    })
}

fn started_once_enough_are_ready(books: &Books, step: &Step<'_>) -> Verdict {
    let enough = books.ready() >= books.config.min_ready.of(books.desired);
    demand(!(enough && step.after.phase == Phase::Starting), || "still starting".to_owned())
}

/// The world gives no evidence that load balancers let go, so the wait is the whole of it.
fn unready_before_the_stop(books: &Books, _: &Step<'_>) -> Verdict {
    let Some(ending) = books.ending.as_ref().filter(|ending| ending.at == books.now && !ending.finished)
    else {
        return Ok(());
    };
    let wait = books.lb_wait();
    let unready_for = books.lame_since.map(|since| books.now.since(since)).unwrap_or_default();
    let cut = match ending.from {
        Stage::Running => books.crash_loop || ending.cut && (ending.signal == Signal::INT || wait.is_zero()),
        Stage::LameDuck => ending.cut,
        Stage::Ending => true,
    };
    demand(cut || (books.committed.is_some() && unready_for >= wait), || {
        format!("unready for {unready_for:?} of {wait:?}: {ending:?}")
    })
}

/// With its time, and with a second signal; INT does not wait at all.
fn the_wait_ends(books: &Books, step: &Step<'_>) -> Verdict {
    let drains = |signal| books.config.signals.get(signal) == Disposition::Drain;
    let cut = matches!(step.event, Event::Signal { signal, .. }
        if drains(*signal) && (books.stage == Stage::LameDuck || *signal == Signal::INT));
    let ends = books.lame_since.map(|since| since + books.lb_wait());
    let over = cut || (books.committed.is_some() && ends.is_some_and(|at| at <= books.now));
    demand(!over || books.ending.is_some() || books.refused.is_some(), || {
        format!("cut: {cut}, ends at {ends:?}")
    })
}

fn ready_workers_are_not_taken_away(books: &Books, step: &Step<'_>) -> Verdict {
    let kept = step.before.ready_workers - books.this_step.lost_ready.min(step.before.ready_workers);
    demand(books.ending.is_some() || step.after.ready_workers >= kept, || {
        format!("{} ready before, {} after", step.before.ready_workers, step.after.ready_workers)
    })
}

/// One worker in each slot, another that takes its place, and nobody else who has not been told to go.
fn everybody_has_a_place(books: &Books, step: &Step<'_>) -> Verdict {
    let seated = |id: &WorkerId, worker: &Record| {
        let slot = books.slots.get(worker.slot as usize);
        slot.is_some_and(|slot| [slot.occupant, slot.successor].contains(&Some(*id)))
    };
    let stray = books.workers.iter().find(|(id, worker)| worker.told.is_none() && !seated(id, worker));
    demand(stray.is_none() && books.slots.len() == step.after.desired as usize, || {
        format!("{stray:?}, {} slots, {} desired", books.slots.len(), step.after.desired)
    })
}

/// A worker that hangs is told to stop once another is ready in its slot, or where there will be none.
fn a_replacement_comes_first(books: &Books, _: &Step<'_>) -> Verdict {
    let running = books.ending.is_none() && books.config.restart != Restart::Never;
    let kept = books.slots.iter().filter(|slot| !slot.refill);
    let forsaken = kept.filter_map(|slot| slot.occupant).find(|id| {
        let occupant = books.workers.get(id);
        running && occupant.is_some_and(|worker| worker.hung && !worker.failed && worker.told.is_some())
    });
    demand(forsaken.is_none(), || format!("{forsaken:?} was told to stop and nobody is there"))
}

/// And nobody is blamed for having been silent who was not.
fn silence_is_noticed(books: &Books, step: &Step<'_>) -> Verdict {
    let unnoticed = books.workers.iter().find(|(_, worker)| {
        books.exit.is_none()
            && worker.watchdog_due.is_some_and(|due| worker.told.is_none() && due <= books.now)
    });
    let counted = step.after.counters.watchdog_timeouts;
    demand(unnoticed.is_none() && counted == books.silences, || {
        format!("{unnoticed:?}, {counted} counted, expected {}", books.silences)
    })
}

/// A drain, a scale-down, lateness, or a replacement that is ready; once for each worker, by the signal that was asked for.
fn a_stop_has_a_reason(books: &Books, _: &Step<'_>) -> Verdict {
    let late_or_scaled = books.config.stop_signal;
    let drain = books.ending.as_ref().map(|ending| ending.signal);
    for sent in books.this_step.sent.iter().filter(|sent| sent.purpose == Purpose::Stop) {
        let told = sent.worker.and_then(|id| books.workers.get(&id)).filter(|worker| worker.told.is_some());
        let right = sent.signal == late_or_scaled || Some(sent.signal) == drain;
        let proper = right && sent.scope == books.config.signal_scope && sent.value.is_none();
        demand(proper && told.is_some_and(|worker| worker.stop_signals == 1), || {
            format!("{sent:?} {told:?}")
        })?;
    }
    Ok(())
}

fn a_stop_reaches_everybody(books: &Books, _: &Step<'_>) -> Verdict {
    let told = books.workers.iter().filter(|(_, worker)| worker.told.is_some() && worker.pid.is_some());
    let due = |worker: &Record| {
        let asked = worker.stop_signals > 0 || worker.message.is_some();
        worker.retires_by.is_none() && !asked && !worker.killed
    };
    let missed = told.into_iter().find(|(_, worker)| due(worker));
    demand(missed.is_none(), || format!("{missed:?} was never told"))
}

/// Where connections wait for one worker alone, it serves them before it is told to stop.
fn the_queue_comes_first(books: &Books, _: &Step<'_>) -> Verdict {
    let early = &books.this_step.told_too_early;
    demand(early.is_empty(), || format!("{early:?} were told with a queue"))
}

/// To whoever serves or may soon, once, and never after the signal.
fn the_message_comes_first(books: &Books, _: &Step<'_>) -> Verdict {
    let odd = &books.this_step.odd_messages;
    demand(odd.is_empty(), || format!("messages to {odd:?}"))?;
    let wrong = books.workers.iter().find(|(_, worker)| {
        let told = worker.told.is_some() && worker.pid.is_some() && worker.retires_by.is_none();
        let due = told && books.config.stop_message.is_some() && !worker.failed && !worker.hung;
        worker.message.is_some() && !due || due && worker.message.is_none() && !worker.killed
    });
    demand(wrong.is_none(), || format!("{wrong:?}"))
}

/// When the message has had its time, is undelivered, or somebody insists: not before, and not later.
fn the_signal_follows_its_message(books: &Books, _: &Step<'_>) -> Verdict {
    let odd = &books.this_step.odd_stops;
    demand(odd.is_empty(), || format!("after KILL: {odd:?}"))?;
    for (id, worker) in &books.workers {
        let Some(message) = worker.message else { continue };
        let due = message.signal_due <= books.now;
        demand(worker.stop_signals == u32::from(due) || worker.killed && worker.stop_signals <= 1, || {
            format!("{id:?} {worker:?}")
        })?;
    }
    Ok(())
}

/// Ten seconds after the hook's return, not before and not later; then the deadline is forgotten.
fn prestop_is_advice(books: &Books, step: &Step<'_>) -> Verdict {
    let (before, after) = (step.before.phase, step.after.phase);
    let back = before == Phase::LameDuck && matches!(after, Phase::Starting | Phase::Serving);
    demand(!back || books.this_step.returned, || format!("back too early, hook {:?}", books.hook_over))?;
    let on_time = after != Phase::LameDuck
        || books
            .prestop_returns_at()
            .is_none_or(|at| books.now < at && step.timeout.is_some_and(|timeout| timeout <= at));
    demand(on_time, || format!("not back, hook {:?}, timeout {:?}", books.hook_over, step.timeout))?;
    let forgotten = step.after.drain.is_none();
    let serving = matches!(after, Phase::Starting | Phase::Serving);
    demand(!serving || forgotten, || "a deadline remains".to_owned())
}

fn a_hook_returns_with_the_lb_wait(books: &Books, step: &Step<'_>) -> Verdict {
    if !books.requests.values().any(|command| *command == Command::PreStop) {
        return Ok(());
    }
    let wait_ends = books.lame_since.map(|since| since + books.lb_wait());
    let waiting = step.after.phase == Phase::LameDuck && wait_ends.is_some_and(|at| books.now < at);
    let finished = books.ending.as_ref().is_some_and(|ending| ending.finished);
    demand(waiting || finished, || format!("a hook waits, the wait ended at {wait_ends:?}"))
}

/// With nobody ready, the orchestrator's own back-off takes over.
fn a_crash_loop_ends_it(books: &Books, _: &Step<'_>) -> Verdict {
    demand(!books.crash_loop || books.ending.is_some(), || "goes on".to_owned())
}

fn every_spawn_is_counted(books: &Books, step: &Step<'_>) -> Verdict {
    let odd = &books.this_step.odd_spawns;
    let counted = step.after.counters.spawns == books.last_worker.0;
    demand(odd.is_empty() && counted, || format!("{odd:?}, {} counted", step.after.counters.spawns))
}

fn one_record_for_each_worker(books: &Books, step: &Step<'_>) -> Verdict {
    if books.exit.is_some() {
        return Ok(());
    }
    let mut known: Vec<_> =
        step.after.workers.iter().map(|view| (view.slot, view.pid, view.state, view.generation)).collect();
    let state = |id| match books.workers.get(id) {
        Some(worker) if worker.told.is_none() && worker.hung => WorkerState::Hung,
        Some(worker) if worker.told.is_none() && worker.stopping.is_some() => WorkerState::Stopping,
        Some(worker) if worker.is_ready() && worker.reloading => WorkerState::Reloading,
        Some(worker) if worker.is_ready() => WorkerState::Ready,
        Some(worker) if worker.told.is_none() => WorkerState::Starting,
        Some(worker) if worker.killed => WorkerState::Killed,
        // Without a pid there is nothing to see of a KILL.
        Some(worker) if worker.pid.is_none() && worker.told <= Some(books.now) => WorkerState::Killed,
        Some(_) | None => WorkerState::Draining,
    };
    let mut expected: Vec<_> = books
        .workers
        .iter()
        .map(|(id, worker)| (worker.slot, worker.pid, state(id), worker.generation))
        .collect();
    known.sort_by_key(|(slot, pid, state, generation)| (*slot, *pid, state.name(), *generation));
    expected.sort_by_key(|(slot, pid, state, generation)| (*slot, *pid, state.name(), *generation));
    demand(known == expected, || format!("{known:?}, expected {expected:?}"))
}

fn signals_reach_the_living_only(books: &Books, _: &Step<'_>) -> Verdict {
    let stray = books.this_step.sent.iter().find(|sent| sent.worker.is_none() || sent.pid.0 <= 0);
    demand(stray.is_none(), || format!("{stray:?}"))
}

fn the_timeout_is_in_the_future(books: &Books, step: &Step<'_>) -> Verdict {
    demand(step.timeout.is_none_or(|at| at > books.now), || format!("{:?}", step.timeout))
}

fn every_request_gets_one_reply(books: &Books, step: &Step<'_>) -> Verdict {
    let odd = &books.this_step.odd_replies;
    demand(odd.is_empty(), || format!("nobody asked: {odd:?}"))?;
    let scaling = books.requests.values().any(|command| matches!(command, Command::Scale(_)));
    demand(!scaling && (step.after.phase != Phase::Exited || books.requests.is_empty()), || {
        format!("no answer to {:?}", books.requests)
    })
}

fn kill_waits_for_the_deadline(books: &Books, _: &Step<'_>) -> Verdict {
    for sent in books.this_step.sent.iter().filter(|sent| sent.purpose == Purpose::Kill) {
        let deadline = sent.worker.and_then(|id| books.workers.get(&id)).and_then(|worker| worker.told);
        let due = deadline.is_some_and(|at| at <= books.now);
        demand(due && sent.scope == Scope::Group, || format!("{sent:?}, its deadline is {deadline:?}"))?;
    }
    Ok(())
}

fn deadlines_are_kept(books: &Books, _: &Step<'_>) -> Verdict {
    let spared = books.workers.iter().find(|(_, worker)| {
        worker.pid.is_some() && !worker.killed && worker.told.is_some_and(|at| at <= books.now)
    });
    demand(spared.is_none(), || format!("{spared:?}"))
}

/// In the last quarter of the time since its stop signal and no more than a second before the deadline, but always then.
fn a_straggler_is_ended_late(books: &Books, _: &Step<'_>) -> Verdict {
    let odd = &books.this_step.odd_ends;
    demand(odd.is_empty(), || format!("odd ends of {odd:?}"))?;
    for (id, worker) in &books.workers {
        let due = books.config.kind == Kind::Pool && worker.end_due().is_some_and(|due| due <= books.now);
        demand(!due || worker.ended || worker.killed, || format!("{id:?} {worker:?}"))?;
    }
    Ok(())
}

/// At a quiet moment or at its deadline, be it that the kernel takes its time; and in the roll that replaced it, if any.
fn whoever_is_killed_is_counted_once(books: &Books, step: &Step<'_>) -> Verdict {
    let twice = &books.this_step.killed_twice;
    demand(twice.is_empty(), || format!("{twice:?}"))?;
    let counters = &step.after.counters;
    let quiet = |why: QuietEnd| books.quiet_ends.get(why.name()).copied().unwrap_or(0);
    let expected = [QuietEnd::NoHandler, QuietEnd::Straggler, QuietEnd::Idle].map(quiet);
    let counted = [counters.ended_without_handler, counters.ended_stragglers, counters.ended_idle];
    demand(counted == expected && counters.forced_kills == books.kills, || {
        format!("{counted:?} and {} killed, expected {expected:?} and {}", counters.forced_kills, books.kills)
    })?;
    let in_rolls: u64 = step.after.history.iter().map(|record| u64::from(record.stragglers)).sum();
    let late = quiet(QuietEnd::Straggler) + books.kills;
    demand(in_rolls <= late, || format!("{in_rolls} stragglers in rolls, {late} in all"))
}

fn the_exit_code_tells(books: &Books, _: &Step<'_>) -> Verdict {
    let Some(status) = &books.exit else {
        return demand(books.refused.is_none(), || "a failed first start was not the end".to_owned());
    };
    let code = books.expected_code();
    let shown = books.config.remap_exit.get(&code).copied().unwrap_or(code);
    demand(status.code == shown, || format!("{status:?}, expected {code} shown as {shown}"))?;
    let one_line = !status.reason.is_empty() && !status.reason.contains('\n');
    demand(one_line && status.reason.len() <= 4096, || format!("{:?}", status.reason))
}

/// At once after the first death and a healthy one, else anything up to the ceiling; in lame-duck too.
fn vacancies_are_filled_within_the_backoff(books: &Books, _: &Step<'_>) -> Verdict {
    // Where the last one is on his way out, a roll may wait for his place.
    let waits_for_its_turn = |occupant: Option<WorkerId>| {
        let worker = occupant.and_then(|id| books.workers.get(&id));
        books.rolls.has_begun() && worker.is_some_and(|worker| worker.told.is_some())
    };
    let overdue = books.slots.iter().enumerate().find(|(_, slot)| {
        slot.vacancy.is_some_and(|vacancy| vacancy.since + vacancy.ceiling <= books.now)
            && !waits_for_its_turn(slot.occupant)
    });
    demand(overdue.is_none() || books.exit.is_some(), || format!("{overdue:?}"))
}

fn the_size_is_what_was_asked_for(books: &Books, step: &Step<'_>) -> Verdict {
    let desired = step.after.desired;
    demand((1..=MAX_WORKERS).contains(&desired) && desired == books.desired, || {
        format!("{desired}, expected {}", books.desired)
    })?;
    let Event::Command { command: Command::Scale(workers), request } = step.event else { return Ok(()) };
    let done = step.actions.iter().any(
        |action| matches!(action, Action::Reply { request: to, outcome: Outcome::Done(_) } if to == request),
    );
    demand(step.before.phase == Phase::Exited || done == (*workers == desired && resizable(books)), || {
        format!("asked for {workers}, done: {done}")
    })
}

fn resizable(books: &Books) -> bool {
    books.config.kind == Kind::Pool && books.stage == Stage::Running
}

fn nobody_is_spawned_in_the_end(books: &Books, step: &Step<'_>) -> Verdict {
    let spawned = step.actions.iter().any(|action| matches!(action, Action::Spawn { .. }));
    demand(!(spawned && (books.ending.is_some() || books.refused.is_some())), || "a spawn".to_owned())
}

fn a_signal_is_forwarded_to_each_once(books: &Books, _: &Step<'_>) -> Verdict {
    let forwards = books.this_step.sent.iter().filter(|sent| sent.purpose == Purpose::Forward);
    let scope = books.config.signal_scope;
    let mut sent: Vec<_> = forwards.map(|sent| (sent.pid, sent.signal, sent.value, sent.scope)).collect();
    let expected = books.this_step.forwards.iter();
    let mut expected: Vec<_> = expected.map(|(pid, signal, value)| (*pid, *signal, *value, scope)).collect();
    sent.sort_by_key(|(pid, ..)| *pid);
    expected.sort_by_key(|(pid, ..)| *pid);
    demand(sent == expected, || format!("{sent:?}, expected {expected:?}"))
}

/// starting, serving, lame-duck, draining, killing, exited; back from lame-duck only.
fn phases_go_forward(_: &Books, step: &Step<'_>) -> Verdict {
    let mut at = step.before.phase;
    for action in step.actions {
        let Action::Tell(Notice::PhaseChanged { from, to }) = action else { continue };
        let rank = |phase| Phase::ALL.iter().position(|known| *known == phase);
        let back = *from == Phase::LameDuck && matches!(to, Phase::Starting | Phase::Serving);
        demand(*from == at && (rank(*to) > rank(*from) || back), || {
            format!("from {from:?} to {to:?}, was {at:?}")
        })?;
        at = *to;
    }
    demand(at == step.after.phase, || format!("told {at:?}, is {:?}", step.after.phase))
}

fn exit_is_the_last_action(_: &Books, step: &Step<'_>) -> Verdict {
    let exit = step.actions.iter().position(|action| matches!(action, Action::Exit(_)));
    let last = exit.is_none_or(|index| index + 1 == step.actions.len());
    let exited = step.after.phase == Phase::Exited;
    demand(last && exit.is_some() == exited, || format!("{:?} at {exit:?}", step.after.phase))
}

/// TERM first, KILL after `--orphan-grace` or at the hard deadline, the end at most a second later.
fn the_sweep_is_patient(books: &Books, step: &Step<'_>) -> Verdict {
    let past_hard = books.ending.is_some() && books.hard_deadline().is_some_and(|hard| hard <= books.now);
    for signal in &books.this_step.sweeps {
        let due = past_hard || books.sweep.as_ref().is_some_and(|sweep| sweep.kill_due <= books.now);
        demand((*signal == Signal::KILL) == due, || format!("{signal} with {:?}", books.sweep))?;
    }
    let Some(sweep) = books.sweep.as_ref().filter(|_| books.refused.is_none()) else { return Ok(()) };
    let deserted = books.this_step.deserted;
    let swept = books.kill_swept || !books.this_step.sweeps.is_empty();
    demand(!deserted || swept, || "no sweep".to_owned())?;
    demand(books.kill_swept || books.exit.is_some() || sweep.kill_due > books.now, || format!("{sweep:?}"))?;
    let ends = sweep.kill_due + SWEEP_PATIENCE;
    let ends = books.hard_deadline().map_or(ends, |hard| ends.min(hard + KILL_PATIENCE));
    let over = books.kill_swept && ends <= books.now;
    let exited = step.after.phase == Phase::Exited;
    demand(exited == (over || sweep.clean), || format!("exited: {exited}, {sweep:?}"))
}

fn ends_with_the_last_process(books: &Books, _: &Step<'_>) -> Verdict {
    let clean = books.sweep.as_ref().is_some_and(|sweep| sweep.clean);
    demand(!clean || books.exit.is_some(), || "nothing is left, and drainit is".to_owned())
}
