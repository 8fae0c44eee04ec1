//! drainit: PID 1 of a container, as a library with one caller.
pub mod admin;
pub mod cli;
pub mod client;
pub mod config;
pub mod core;
pub mod daemon;
pub mod entry;
pub mod log;
pub mod sys;

pub use entry::{in_pod, run};
