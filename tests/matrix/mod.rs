//! Real servers as they are, a row each, and one trial for all of them.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

pub mod client;
pub mod row;
pub mod servers;
pub mod trial;
