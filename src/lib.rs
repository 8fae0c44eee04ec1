//! drainit is PID 1 of a container. This page is its architecture; the README is for its users.
//!
//! # The shape
//!
//! ```text
//!            argv, environment
//!                   │
//!                ┌──▼──┐   resolved once    ┌────────┐
//!                │ cli │ ─────────────────► │ config │
//!                └──┬──┘                    └────────┘
//!   run a pool      │        ask a running one
//!        ┌──────────┴───────────────┐
//!    ┌───▼────┐                 ┌───▼────┐
//!    │ daemon │  the one loop   │ client │ ──── control socket ───┐
//!    └─┬──┬─┬─┘                 └────────┘                        │
//!      │  │ └── snapshots, requests ──► ┌───────┐ ◄───────────────┘
//!      │  │                             │ admin │ ◄── probes, metrics
//!      │  └── actions ──► ┌─────┐       └───┬───┘
//!      │      ◄── events  │ sys │           │ reads
//!      │                  └─────┘           │
//!      └── events ──► ┌──────┐ ◄────────────┘
//!          ◄─ actions │ core │
//!                     └──────┘
//! ```
//!
//! - [`core`] decides. It is a state machine without clock, I/O or async: events in, actions out, time as an
//!   argument. What drainit promises about order and time is an invariant of it, checked over a hundred thousand
//!   random histories (`tests/simulation.rs`).
//! - [`sys`] touches the kernel: one mechanism a file, and the only unsafe code (`main` excepted, whose name the C
//!   runtime wants). It reports and decides nothing.
//! - [`daemon`] performs: the one loop, on one thread, which turns what happened into events and actions into system
//!   calls.
//! - [`admin`] answers probes from a snapshot that the loop publishes, and never holds it up.
//! - [`client`] is the other end of the control socket: the subcommands.
//! - [`cli`] and [`config`] turn what was typed into what is meant, before anything is started.
//!
//! Arrows point inward: cli → daemon → {sys, admin} → core. `tests/architecture.rs` fails where one does not.
//!
//! # Two eras
//!
//! While booting, everything may be refused: one clear line, a documented exit code, nothing half-started. From the
//! first worker on nothing ends the process by accident. No error leaves the loop; a panic falls back to an init
//! that forwards, reaps and ends in time; the log is written only where that cannot block.
//!
//! # One reaper, one thread
//!
//! Only this process reaps, and a dead worker is looked at before it is reaped, so no signal reaches a pid or a group
//! that has become somebody else's. With one thread, starting a process needs no ceremony: the child borrows our
//! memory until it executes its command ([`sys::spawn`]), which costs no descriptor and no copy, and gives the error
//! back by itself.
//!
//! # Sockets
//!
//! The listening sockets are made before the first worker and outlive every one of them. A worker inherits them, or, if
//! it binds for itself, is given them when it does: its bind(2) and listen(2) wait for the loop's answer
//! ([`sys::seccomp`]), and the loop decides from what it sees of the worker's socket (`daemon::adoption`). Where each worker
//! has a queue of its own, the core says who serves, `daemon::sockets` which part of a socket that is, and a program in the
//! kernel sends new connections there ([`sys::steering`]).
//!
//! When no worker accepts any more, the loop answers what still waits there (`daemon::late`) and then shuts the sockets for
//! everybody who has them ([`sys::doors`]).
//!
//! # Load balancers
//!
//! While they let go, the core asks what is seen of them, look by look, and ends the wait at a look that proves enough
//! ([`core::lb_wait`]). The daemon looks: at new connections to the workers, which are counted from beside the road
//! ([`sys::arrivals`]), and at who checks readiness, of which `admin` keeps account all along.
//!
//! # Rolls
//!
//! A generation is a command, an environment and a version. Those are the daemon's (`daemon::releases`); the core knows a
//! release by its number and decides who is spawned when. A slot has an occupant and, while it changes hands, a successor;
//! one machine (`core::roll`) surveys the slots after every event and gives out turns within the bounds, forward or,
//! after a failure, back. Recycling turns one slot of the same generation. What a roll did is kept as it happens
//! ([`core::history`], [`core::timeline`]).
//!
//! # What workers say
//!
//! Each has a socket of its own for sd_notify(3). A task waits for words, the loop reads them ([`sys::notify`]), and the
//! core decides over them ([`core::word`]), the watchdog's clock included. Before any deadline is taken for missed the
//! loop reads what is still there: no worker is blamed for a silence that was ours.
//!
//! # Signals
//!
//! All of them are blocked from the first instruction on and read one by one from a descriptor ([`sys::signals`]):
//! PID 1 loses what is neither blocked nor handled, and only a queue keeps real-time signals in number and order.

pub mod admin;
pub mod cli;
pub mod client;
pub mod config;
pub mod core;
pub mod daemon;
mod entry;
pub mod http;
pub mod log;
pub mod sys;

pub use entry::run;
