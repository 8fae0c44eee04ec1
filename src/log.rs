//! drainit's own log: structured lines on stderr, which can be lost but never waited for.

use std::io;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::Log;
use crate::config::values::LogFormat;
use crate::sys::stderr;

/// From here on `tracing`'s macros write lines.
pub fn start(log: Log) {
    if log.level == LevelFilter::OFF {
        return;
    }
    let builder = fmt().with_max_level(log.level).with_writer(Lines).with_target(false).with_ansi(false);
    // A second subscriber is refused; there is none.
    let _ = match log.format {
        LogFormat::Text => tracing::subscriber::set_global_default(builder.finish()),
        LogFormat::Json => {
            tracing::subscriber::set_global_default(builder.json().flatten_event(true).finish())
        }
    };
}

/// Hands each event, which tracing writes in one piece, to stderr as one line.
#[derive(Debug)]
struct Lines;

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        Self
    }
}

impl io::Write for Lines {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let mut line = event.to_vec();
        stderr::truncate(&mut line);
        stderr::write_line(&line);
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
