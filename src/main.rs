//! The entry point. The standard library's own start-up is left out, because what it does to a program is undone
//! for no worker: it ignores SIGPIPE, opens /dev/null where 0, 1 or 2 are closed (and aborts where there is no
//! /dev), and installs handlers for faults. Before it comes the blocking of signals, which cannot wait.
#![no_main]
#![expect(unsafe_code, reason = "the name that the C runtime calls")]

use std::panic::catch_unwind;

/// Called by the C runtime, which has handed the arguments to the standard library already (`.init_array`).
// SAFETY: no other `main` is linked.
#[unsafe(no_mangle)]
pub extern "C" fn main(_argc: i32, _argv: *const *const u8) -> i32 {
    // Unwinding into C would abort, and an abort in PID 1 is reported as a segmentation fault.
    i32::from(
        catch_unwind(|| drainit::run(std::env::args_os())).unwrap_or(drainit::core::types::code::SOFTWARE),
    )
}
