//! Has the linker keep one copy of functions that are the same, byte for byte (28 KB of those that generics make), and no
//! table by which a panic finds its way faster (52 KB): a static program's frames are registered at its start, and a
//! thousand panics that are caught take as long with it as without.
//!
//! For the program alone, and where the toolchain links with lld by itself; no other linker has to know the option.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let lld = [
        ("PROFILE", "release"),
        ("CARGO_CFG_TARGET_ARCH", "x86_64"),
        ("CARGO_CFG_TARGET_OS", "linux"),
        ("CARGO_CFG_TARGET_ENV", "gnu"),
    ];
    if lld.iter().all(|(name, value)| std::env::var(name).is_ok_and(|is| is == *value)) {
        println!("cargo::rustc-link-arg-bin=drainit=-Wl,--icf=all,--no-eh-frame-hdr");
    }
}
