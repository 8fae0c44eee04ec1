//! The size of the program.

use std::io;

use crate::launch::Namespace;
use crate::plan::Plan;
use crate::subject::Subject;
use crate::table::{self, Bar, Row};

const BAR: Bar = Bar::Value(3072.0);

pub(crate) fn measure(_: &Plan, inits: &[Subject], _: Option<Namespace>) -> io::Result<Vec<Row>> {
    let row = |init: &Subject| -> io::Result<Row> {
        let bytes = std::fs::metadata(&init.path)?.len();
        Ok(Row::of("size of the program", init, bytes.div_ceil(1024) as f64, BAR))
    };
    let rows = inits.iter().map(row).collect::<io::Result<_>>()?;
    Ok(table::once("size of the program", "KiB", rows))
}
