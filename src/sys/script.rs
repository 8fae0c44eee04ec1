//! Scripts: what the kernel has them run by.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// As much as the kernel reads of it.
const LINE_MAX: u64 = 256;

/// The program in the first line of a script, the one that `env` is to look for included. `None` for what is no
/// script or cannot be read.
pub fn interpreter(command: &OsStr) -> Option<OsString> {
    let mut head = Vec::new();
    File::open(file(command)?).ok()?.take(LINE_MAX).read_to_end(&mut head).ok()?;
    in_first_line(&head)
}

/// As it is looked for when it is executed.
fn file(command: &OsStr) -> Option<PathBuf> {
    if command.as_bytes().contains(&b'/') {
        return Some(command.into()).filter(|path: &PathBuf| path.is_file());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(command)).find(|path| path.is_file())
}

fn in_first_line(head: &[u8]) -> Option<OsString> {
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let program = words.next()?;
    let program = if Path::new(OsStr::from_bytes(program)).file_name() == Some(OsStr::new("env")) {
        // `env -S NAME=value node --flag`
        words.find(|word| !word.starts_with(b"-") && !word.contains(&b'='))?
    } else {
        program
    };
    Some(OsString::from_vec(program.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interpreter_is_in_the_first_line() {
        let of = |text: &str| in_first_line(text.as_bytes()).map(|name| name.into_string().unwrap());
        let is = |text: &str, name: &str| assert_eq!(of(text).as_deref(), Some(name), "{text}");
        is("#!/usr/bin/env node\nimport x", "node");
        is("#! /usr/bin/env -S FOO=1 node --enable-source-maps\n", "node");
        is("#!/opt/node/bin/node --flag\n", "/opt/node/bin/node");
        is("#!/bin/sh", "/bin/sh");
        for text in ["", "#!", "#!\n/bin/sh", "#!/usr/bin/env\n", "\x7fELF", " #!/bin/sh"] {
            assert_eq!(of(text), None, "{text}");
        }
    }

    #[test]
    fn a_command_without_a_slash_is_looked_for_in_path() {
        assert!(interpreter(OsStr::new("/no/such/file")).is_none());
        assert!(interpreter(OsStr::new("sh")).is_none(), "a binary");
        assert!(interpreter(OsStr::new("/tmp")).is_none(), "a directory");
    }
}
