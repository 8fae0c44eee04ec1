//! The entry point. The standard library's own start-up is left out, because what it does to a program is undone
//! for no worker: it ignores SIGPIPE, opens /dev/null where 0, 1 or 2 are closed (and aborts where there is no
//! /dev), and installs handlers for faults. Before it comes the blocking of signals, which cannot wait.
#![no_main]
#![expect(unsafe_code, reason = "the name that the C runtime calls")]

use std::ffi::{CStr, OsStr, OsString, c_char};
use std::os::unix::ffi::OsStrExt;
use std::panic::catch_unwind;

/// musl, unlike glibc, hands the arguments to nobody else: `std::env::args` is empty there.
///
/// # Safety
/// Called by the C runtime, once, with what it calls `main` with.
// SAFETY: no other `main` is linked.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn main(argc: i32, argv: *const *const c_char) -> i32 {
    // The very first act: PID 1 drops what is neither blocked nor handled.
    let inherited = drainit::sys::signals::take_over();
    let args: Vec<OsString> = (0..usize::try_from(argc).unwrap_or(0))
        .map(|index| {
            // SAFETY: argv holds argc pointers (C11, 5.1.2.2.1).
            let arg = unsafe { argv.add(index) };
            // SAFETY: as above.
            let arg = unsafe { arg.read() };
            // SAFETY: each is a NUL-terminated string that lives as long as the process.
            OsStr::from_bytes(unsafe { CStr::from_ptr(arg) }.to_bytes()).to_owned()
        })
        .collect();
    // Unwinding into C would abort, and an abort in PID 1 is reported as a segmentation fault.
    i32::from(catch_unwind(|| drainit::run(inherited, args)).unwrap_or(drainit::core::types::code::SOFTWARE))
}
