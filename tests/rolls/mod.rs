//! Rolls of real servers under a steady load.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

pub mod rows;
pub mod websocket;

use std::ops::{Deref, DerefMut};
use std::process::Output;
use std::time::Instant;

use serde_json::Value;

use crate::common::pool::{Pool, PoolLaunch, code, text};
use crate::common::{pid1, until};
use crate::matrix::row::{Row, Stage};
use crate::steady::{Shape, Steady, Tally};

pub const WORKERS: u64 = 2;

/// No roll of a test takes so long, on the slowest machine.
const PATIENCE: &str = "3m";

/// Rolls in a row: so many, unless `ROLLS` says how many.
pub fn rolls(usually: u32) -> u32 {
    std::env::var("ROLLS").ok().and_then(|rolls| rolls.parse().ok()).unwrap_or(usually)
}

/// A pool of one of the servers, that has been started.
pub struct Trial {
    name: &'static str,
    pool: Pool,
    /// Its files are needed as long as it may start another worker.
    _stage: Stage,
}

impl Deref for Trial {
    type Target = Pool;

    fn deref(&self) -> &Pool {
        &self.pool
    }
}

impl DerefMut for Trial {
    fn deref_mut(&mut self) -> &mut Pool {
        &mut self.pool
    }
}

impl Trial {
    /// `None` where something is missing, which has been said.
    #[track_caller]
    pub fn start(row: &Row, options: &[&str]) -> Option<Self> {
        Self::of(WORKERS, row, options)
    }

    #[track_caller]
    pub fn of(workers: u64, row: &Row, options: &[&str]) -> Option<Self> {
        let stage = Stage::new(row)?;
        let launch = PoolLaunch::of(pid1());
        let port = launch.port().number;
        let setting = stage.setting(port);
        stage.furnish(row, &setting);
        let own = [
            format!("--workers={workers}"),
            format!("--listen={port}"),
            format!("--stop-signal={}", row.stop),
        ];
        let pool = launch.options(own).options(options).command(setting.words(row.command)).start();
        pool.wait_ready(workers);
        Some(Self { name: row.name, pool, _stage: stage })
    }

    /// Roll so many times under that load, one roll after the other.
    #[track_caller]
    pub fn roll_under(&self, path: &str, shape: Shape, rolls: u32) -> Tally {
        let load = Steady::start(self.address(), path, shape);
        wait_for_answers(&load);
        let began = Instant::now();
        for _ in 0..rolls {
            self.roll(&[]);
        }
        let took = began.elapsed();
        wait_for_answers(&load);
        let tally = load.stop().expect("the load");
        let each = took / rolls.max(1);
        eprintln!("{}, {rolls} rolls of {each:.2?}: {tally}", self.name);
        let last = last_roll(&self.pool);
        assert!(last["least_ready"].as_u64() >= Some(WORKERS), "{}: {last}", self.name);
        tally
    }

    /// The same, and not one request may fail.
    #[track_caller]
    pub fn loses_nothing(&self, path: &str, shape: Shape, rolls: u32) {
        let tally = self.roll_under(path, shape, rolls);
        assert_eq!(tally.failures(), 0, "{}: {tally}\n{}", self.name, *self.pool);
    }

    /// One roll, with more words.
    #[track_caller]
    pub fn roll(&self, words: &[&str]) {
        let output = self.ask(&[&["restart", "--wait", "--timeout", PATIENCE], words].concat());
        assert_eq!(code(&output), 0, "{}: {}\n{}", self.name, said(&output), *self.pool);
    }
}

pub fn last_roll(pool: &Pool) -> Value {
    pool.status()["history"].as_array().and_then(|rolls| rolls.last().cloned()).unwrap_or_default()
}

/// The load is under way, or has gone on for a while.
#[track_caller]
pub fn wait_for_answers(load: &Steady) {
    let before = load.answered();
    until("the load goes on", || (load.answered() >= before + 10 || load.failed() > 0).then_some(()));
}

pub fn said(output: &Output) -> String {
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}
