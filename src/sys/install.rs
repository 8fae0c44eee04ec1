//! Copying this very binary, for an initContainer that brings it to somebody else's image.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Copy the running binary to `path`, or into it where it is a directory. Whoever looks sees no file, the old one
/// or the whole new one.
pub fn to(path: &Path) -> io::Result<PathBuf> {
    let target = if path.is_dir() { path.join("drainit") } else { path.to_owned() };
    let mut draft = target.clone().into_os_string();
    draft.push(format!(".{}", std::process::id()));
    let draft = PathBuf::from(draft);
    copy(&draft).and_then(|()| fs::rename(&draft, &target)).inspect_err(|_| {
        let _ = fs::remove_file(&draft);
    })?;
    Ok(target)
}

fn copy(draft: &Path) -> io::Result<()> {
    // /proc may not be mounted; then the name by which this was started has to do.
    let mut source = File::open("/proc/self/exe")
        .or_else(|_| File::open(std::env::args_os().next().unwrap_or_default()))?;
    let mut copy = OpenOptions::new().write(true).create_new(true).mode(0o755).open(draft)?;
    io::copy(&mut source, &mut copy)?;
    copy.sync_all()
}
