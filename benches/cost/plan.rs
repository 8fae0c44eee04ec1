//! How much is measured.

use std::time::Duration;

pub(crate) struct Plan {
    pub(crate) quick: bool,
    only: Option<Vec<String>>,
    pub(crate) start_rounds: usize,
    pub(crate) signal_rounds: usize,
    /// Rounds of the storm and of the burst, and orphans in each of them.
    pub(crate) storm: (usize, usize),
    pub(crate) burst: (usize, usize),
    pub(crate) filter_rounds: usize,
    /// Rounds of the throughput, and how long each load lasts in them.
    pub(crate) serve: (usize, Duration),
    /// Rounds of new connections and of kept ones.
    pub(crate) spread: [usize; 2],
    pub(crate) kills: usize,
    /// Rolls under load, and rolls that are timed.
    pub(crate) rolls: [usize; 2],
    pub(crate) settle: Duration,
    pub(crate) idle: Duration,
}

impl Plan {
    pub(crate) fn from_environment() -> Self {
        let quick = std::env::var_os("BENCH_QUICK").is_some_and(|value| !value.is_empty() && value != "0");
        let only = std::env::var("BENCH_ONLY").ok().filter(|names| !names.is_empty());
        let only = only.map(|names| names.split(',').map(str::to_owned).collect());
        if quick { Self { only, ..Self::quick() } } else { Self { only, ..Self::full() } }
    }

    pub(crate) fn wants(&self, measure: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.iter().any(|name| name == measure))
    }

    fn full() -> Self {
        Self {
            quick: false,
            only: None,
            start_rounds: 500,
            signal_rounds: 10_000,
            storm: (20, 1000),
            burst: (10, 2000),
            filter_rounds: 200,
            serve: (80, Duration::from_millis(200)),
            spread: [7, 25],
            kills: 50,
            rolls: [20, 11],
            settle: Duration::from_secs(3),
            idle: Duration::from_secs(10),
        }
    }

    fn quick() -> Self {
        Self {
            quick: true,
            only: None,
            start_rounds: 100,
            signal_rounds: 2000,
            storm: (5, 400),
            burst: (5, 400),
            filter_rounds: 50,
            serve: (15, Duration::from_millis(150)),
            spread: [2, 15],
            kills: 10,
            rolls: [5, 3],
            settle: Duration::from_secs(2),
            idle: Duration::from_secs(4),
        }
    }
}
