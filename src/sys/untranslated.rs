//! Messages of the C library, left in English: nobody calls setlocale(3) here, so that is what they are anyway. What would
//! translate them is 48 KB (catalogues, character sets, and the loader of shared objects for those), and
//! linked into every static program, since assert(3) and strerror(3) ask it.

use nix::libc::{c_char, c_int};

// SAFETY: the arguments and the result are those of dcgettext(3), whose result is its argument where there is no catalogue.
#[unsafe(no_mangle)]
extern "C" fn __dcgettext(_domain: *const c_char, message: *const c_char, _category: c_int) -> *const c_char {
    message
}
