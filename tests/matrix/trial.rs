//! Three workers on one port under load, each of them killed once: nothing may be lost but what it had in hand.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::client::Client;
use super::row::Row;
use crate::common::pool::{Member, members};
use crate::common::{Process, until};
use crate::load::{Kind, Load, Report};

pub const WORKERS: usize = 3;

/// Each has one request at a time: no more can be in flight.
const CLIENTS: usize = 4;

/// The machine is to be busy, not exhausted.
const PAUSE: Duration = Duration::from_millis(1);

/// Answered before, between and after the kills.
const REQUESTS: u64 = 200;

/// A pool that has been started.
pub trait Pool {
    /// On 127.0.0.1, where the workers serve.
    fn port(&self) -> u16;
    /// `None` while it cannot be asked yet.
    fn status(&self) -> Option<Value>;
    fn init(&self) -> Process;
}

pub fn run(row: &Row, pool: &impl Pool, client: Client) {
    let mut trial = Trial { row, pool, answered: Arc::default(), kills: Vec::new() };
    trial.wait_until_all_serve();
    let load = trial.load(client);
    trial.wait_until_all_answer(&load);
    for slot in 0..WORKERS {
        trial.kill(slot);
        trial.wait_until_all_serve();
        trial.wait_until_all_answer(&load);
    }
    trial.judge(&load.stop());
}

struct Trial<'a, P> {
    row: &'a Row,
    pool: &'a P,
    /// The processes that have answered, as their own namespace counts.
    answered: Arc<Mutex<BTreeSet<i32>>>,
    kills: Vec<Kill>,
}

/// From the signal until nothing of the worker was left.
struct Kill {
    began: Instant,
    over: Instant,
}

impl<P: Pool> Trial<'_, P> {
    fn load(&self, client: Client) -> Load {
        let server = SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.pool.port());
        let (answered, asked) = (Arc::clone(&self.answered), Arc::new(AtomicU8::new(0)));
        Load::of(CLIENTS, PAUSE, move || {
            // From everywhere, whatever it is that decides who answers whom.
            let from = Ipv4Addr::new(127, 0, 1, asked.fetch_add(1, Ordering::Relaxed));
            let pid = client.ask(from, server)?;
            answered.lock().unwrap().insert(pid);
            Ok(())
        })
    }

    fn members(&self) -> Vec<Member> {
        self.pool.status().map_or_else(Vec::new, |status| members(self.pool.init(), &status))
    }

    /// Three are ready, and each has the socket in the way that the row says.
    fn wait_until_all_serve(&self) {
        let workers = until("three ready workers", || {
            let status = self.pool.status()?;
            let workers = status["workers"].as_array()?;
            (status["ready_workers"] == WORKERS && workers.len() == WORKERS).then(|| workers.clone())
        });
        for worker in workers {
            assert_eq!(worker["socket"], self.row.socket.word(), "{}: {worker}", self.row.name);
        }
    }

    /// Each of the three, whoever has answered before: it or a process below it.
    fn wait_until_all_answer(&self, load: &Load) {
        self.answered.lock().unwrap().clear();
        let before = load.answered();
        until("an answer of each worker", || {
            let members = self.members();
            let all = members.iter().filter(|member| self.has_answered(member.process)).count();
            (all == WORKERS && load.answered() >= before + REQUESTS).then_some(())
        });
    }

    fn has_answered(&self, worker: Process) -> bool {
        let answered = self.answered.lock().unwrap();
        worker.family().iter().any(|own| own.pid_inside().parse().is_ok_and(|pid| answered.contains(&pid)))
    }

    fn kill(&mut self, slot: usize) {
        let in_slot = || self.members().into_iter().find(|member| member.slot == slot as u64);
        let victim = until("somebody in the slot", in_slot).process;
        let began = Instant::now();
        victim.signal(libc::SIGKILL);
        // What it has started goes on until drainit ends it.
        until("nothing is left of a killed worker", || {
            let mut others = self.pool.init().family().into_iter();
            let left = others.any(|other| other.group() == i64::from(victim.0) && other.is_alive());
            (!left).then_some(())
        });
        let over = Instant::now();
        until("another in its place", || in_slot().filter(|member| member.process != victim));
        self.kills.push(Kill { began, over });
    }

    /// Only requests that a killed worker had in hand may fail.
    fn judge(&self, report: &Report) {
        let name = self.row.name;
        let mut unexplained = report.failures.clone();
        for kill in &self.kills {
            let before = unexplained.len();
            unexplained.retain(|failure| {
                let in_hand = failure.at >= kill.began && failure.began <= kill.over;
                !(in_hand && matches!(failure.kind, Kind::Reset | Kind::Cut))
            });
            let lost = before - unexplained.len();
            assert!(lost <= CLIENTS, "{name}: {lost} requests lost by one kill");
        }
        assert!(unexplained.is_empty(), "{name}: {}\n{unexplained:?}", report.summary());
        eprintln!("{name}: {}, slowest {:?}", report.summary(), report.slowest);
    }
}
