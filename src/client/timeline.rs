//! The workers of a roll over time, one row a slot: what the eye needs to see that somebody always served.

use serde::Deserialize;

/// Columns of a row.
const WIDTH: usize = 48;

const AFTERMATH: f64 = 1.05;

/// One worker; in seconds since the roll began.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Lifespan {
    slot: u32,
    generation: u64,
    started: f64,
    ready: Option<f64>,
    stopping: Option<f64>,
    gone: Option<f64>,
}

/// What one slot is at one moment.
#[derive(Clone, Copy, Debug, Default)]
struct Moment {
    old: bool,
    new: bool,
    starting: bool,
    leaving: bool,
}

impl Moment {
    const fn mark(self) -> char {
        match self {
            Self { old: true, new: true, .. } => '▓',
            Self { old: false, new: true, .. } => '█',
            Self { old: true, starting: true, .. } => '▒',
            Self { old: true, .. } => '░',
            Self { starting: true, .. } => '+',
            Self { leaving: true, .. } => '-',
            Self { .. } => '·',
        }
    }
}

/// Rows for every slot, and what the marks mean. The newest generation is `new`; the last moment is `until`.
pub(super) fn draw(lifespans: &[Lifespan], new: u64, until: f64) -> String {
    if lifespans.is_empty() {
        return String::new();
    }
    let slots: std::collections::BTreeSet<u32> = lifespans.iter().map(|one| one.slot).collect();
    // A little of what comes after it, so that the last one to change is seen to have changed.
    let until = (until * AFTERMATH).max(0.001);
    let mut out = String::new();
    for slot in slots {
        let of_slot: Vec<_> = lifespans.iter().filter(|one| one.slot == slot).collect();
        let row: String = (0..WIDTH)
            .map(|column| {
                let from = until * column as f64 / WIDTH as f64;
                moment(&of_slot, new, from, until * (column + 1) as f64 / WIDTH as f64).mark()
            })
            .collect();
        let now = of_slot.iter().filter(|one| one.gone.is_none()).map(|one| one.state());
        let now = now.collect::<Vec<_>>().join(", ");
        out += &format!("{slot:>4} {row} {now}\n");
    }
    out + &format!(
        "     0 s{:>width$}\n     ░ old serves  ▒ and new starts  ▓ both serve  █ new serves  · nobody does\n",
        format!("{until:.1} s"),
        width = WIDTH - 3
    )
}

/// Whoever serves at any time of a column serves in it, but for those who are on the way out.
fn moment(of_slot: &[&Lifespan], new: u64, from: f64, to: f64) -> Moment {
    let mut moment = Moment::default();
    for one in of_slot {
        let end = |at: Option<f64>| at.unwrap_or(f64::INFINITY);
        let serves = one.ready.is_some_and(|ready| ready < to) && end(one.stopping) > from;
        let lives = one.started < to && end(one.gone) > from;
        match (serves, one.generation == new) {
            (true, true) => moment.new = true,
            (true, false) => moment.old = true,
            (false, _) if lives && one.stopping.is_some_and(|at| at <= from) => moment.leaving = true,
            (false, _) => moment.starting |= lives && one.ready.is_none_or(|ready| ready >= to),
        }
    }
    moment
}

impl Lifespan {
    fn state(&self) -> String {
        let state = match (self.ready, self.stopping) {
            (_, Some(_)) => "leaving",
            (Some(_), None) => "ready",
            (None, None) => "starting",
        };
        format!("{} {state}", self.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_overlap_is_seen() {
        let json = r#"[
            {"slot":0,"generation":1,"started":-9,"ready":-8,"stopping":5,"gone":6},
            {"slot":0,"generation":2,"started":1,"ready":4,"stopping":null,"gone":null},
            {"slot":1,"generation":1,"started":-9,"ready":-8,"stopping":2,"gone":3},
            {"slot":1,"generation":2,"started":6,"ready":8,"stopping":null,"gone":null}]"#;
        let lifespans: Vec<Lifespan> = serde_json::from_str(json).unwrap();
        let drawn = draw(&lifespans, 2, 12.0 / AFTERMATH);
        let rows: Vec<_> = drawn.lines().collect();
        assert_eq!(rows[0], "   0 ░░░░▒▒▒▒▒▒▒▒▒▒▒▒▓▓▓▓████████████████████████████ 2 ready");
        assert_eq!(rows[1], "   1 ░░░░░░░░----············++++++++████████████████ 2 ready");
        assert!(rows[2].ends_with("12.0 s"), "{drawn}");
    }

    #[test]
    fn without_a_roll_there_is_nothing() {
        assert_eq!(draw(&[], 1, 1.0), "");
    }
}
