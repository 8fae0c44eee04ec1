//! The supervisor as a pure state machine: events in, actions out, time as an argument.
//!
//! Nothing here reads a clock, does I/O, allocates descriptors or knows tokio. The driver stamps each
//! [`Event`](event::Event) with the time, performs every [`Action`](event::Action) that
//! [`Supervisor::poll_action`] hands out, and comes back with a `Tick` no later than
//! [`Supervisor::poll_timeout`]. The same events at the same times with the same seed give the same actions,
//! byte for byte; so whatever is promised about order and time is an invariant checked by simulation
//! (`tests/simulation.rs`), and every history of it can be replayed.
//!
//! [`Supervisor`] routes; the parts own their state: `pool` and `worker` who runs, `roll` how one generation
//! follows another, `drain` how it ends, `lb_wait` when load balancers have let go, `breaker` and `backoff` when a crash is too many, `watchdog` when a worker has been silent for too long.

mod backoff;
mod breaker;
pub mod burst;
pub mod config;
mod context;
mod drain;
pub mod event;
pub mod history;
mod late;
pub mod lb_wait;
mod pool;
mod rng;
mod roll;
mod scales;
pub mod seat;
pub mod signal;
pub mod snapshot;
mod stop_message;
mod supervisor;
pub mod time;
pub mod timeline;
pub mod types;
mod watchdog;
pub mod word;
mod worker;

pub use supervisor::Supervisor;
