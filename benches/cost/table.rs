//! Lines of figures, and what is to be said of them at the end.

use crate::stats::Series;
use crate::subject::{REFERENCE, Subject};

/// What a figure must not exceed.
#[derive(Clone, Copy)]
pub(crate) enum Bar {
    /// So many times the figure of whom it is compared with.
    Ratio(f64),
    /// So much.
    Value(f64),
    None,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ok,
    Over,
    /// Nothing to compare with.
    Unknown,
    /// Not held against a bar.
    None,
}

/// One subject's figure.
pub(crate) struct Row {
    measure: String,
    subject: String,
    value: f64,
    p10: Option<f64>,
    ratio: Option<f64>,
    /// Whose figure the ratio is to.
    beside: &'static str,
    bar: Bar,
}

impl Row {
    pub(crate) fn of(measure: &str, subject: &Subject, value: f64, bar: Bar) -> Self {
        let bar = if subject.ours { bar } else { Bar::None };
        Self {
            measure: measure.to_owned(),
            subject: subject.name.clone(),
            value,
            p10: None,
            ratio: None,
            beside: REFERENCE,
            bar,
        }
    }

    fn verdict(&self) -> Verdict {
        let (figure, bar) = match self.bar {
            Bar::None => return Verdict::None,
            Bar::Value(bar) => (Some(self.value), bar),
            Bar::Ratio(bar) => (self.ratio, bar),
        };
        match figure.filter(|figure| figure.is_finite()) {
            None => Verdict::Unknown,
            Some(figure) if figure <= bar => Verdict::Ok,
            Some(_) => Verdict::Over,
        }
    }

    fn bar(&self) -> String {
        match self.bar {
            Bar::None => String::new(),
            Bar::Value(bar) => format!("<= {bar}"),
            Bar::Ratio(bar) => format!("<= {bar} x {}", self.beside),
        }
    }

    fn print(&self) {
        let verdict = match self.verdict() {
            Verdict::Ok => "ok".to_owned(),
            Verdict::Over => "OVER".to_owned(),
            Verdict::Unknown => format!("no {}", self.beside),
            Verdict::None => String::new(),
        };
        let optional = |figure: Option<f64>| figure.map_or_else(|| "-".to_owned(), short);
        let line = format!(
            "  {:<12} {:>10} {:>10} {:>8}   {:<14} {verdict}",
            self.subject,
            short(self.value),
            optional(self.p10),
            self.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
            self.bar(),
        );
        println!("{}", line.trim_end());
    }

    /// What the summary says of a row that is over its bar.
    fn excess(&self) -> String {
        let figure = match self.bar {
            Bar::Ratio(_) => format!("{:.2}", self.ratio.unwrap_or(f64::NAN)),
            _ => short(self.value),
        };
        format!("{} of {}: {figure}, bar {}", self.measure, self.subject, self.bar())
    }
}

/// Print the figures of one measure that was taken in rounds.
pub(crate) fn rounds(measure: &str, unit: &str, series: &[Series], bar: Bar) -> Vec<Row> {
    rounds_beside(REFERENCE, measure, unit, series, bar)
}

/// The same beside somebody else than tini.
pub(crate) fn rounds_beside(
    beside: &'static str,
    measure: &str,
    unit: &str,
    series: &[Series],
    bar: Bar,
) -> Vec<Row> {
    let reference = series.iter().find(|series| series.subject.name == beside);
    let row = |series: &Series| Row {
        p10: Some(series.p10()),
        ratio: reference.map(|reference| series.ratio_to(reference)),
        beside,
        ..Row::of(measure, &series.subject, series.median(), bar)
    };
    let rows: Vec<_> = series.iter().map(row).collect();
    let count = series.first().map_or(0, |series| series.values.len());
    print(&format!("{measure}, {unit} ({count} rounds)"), &rows);
    rows
}

/// Print figures that were taken once.
pub(crate) fn once(measure: &str, unit: &str, mut rows: Vec<Row>) -> Vec<Row> {
    let reference = rows.iter().find(|row| row.subject == REFERENCE).map(|row| row.value);
    if let Some(reference) = reference.filter(|reference| *reference > 0.0) {
        rows.iter_mut().for_each(|row| row.ratio = Some(row.value / reference));
    }
    print(&format!("{measure}, {unit}"), &rows);
    rows
}

fn print(title: &str, rows: &[Row]) {
    println!("\n{title}");
    let beside = format!("x {}", rows.first().map_or(REFERENCE, |row| row.beside));
    println!("  {:<12} {:>10} {:>10} {beside:>8}   bar", "", "median", "p10");
    rows.iter().for_each(Row::print);
}

/// The last line.
pub(crate) fn summary(rows: &[Row]) -> String {
    let having = |verdict| rows.iter().filter(move |row| row.verdict() == verdict);
    let ok = having(Verdict::Ok).count();
    let over: Vec<_> = having(Verdict::Over).map(Row::excess).collect();
    let unknown = having(Verdict::Unknown).count();
    let without =
        if unknown > 0 { format!(", {unknown} without tini to compare with") } else { String::new() };
    if over.is_empty() {
        format!("bench: all within their bars: {ok} rows{without}")
    } else {
        format!("bench: {} rows OVER, {ok} within their bars{without}: {}", over.len(), over.join("; "))
    }
}

fn short(figure: f64) -> String {
    if figure.fract() == 0.0 || figure.abs() >= 1000.0 {
        format!("{figure:.0}")
    } else {
        format!("{figure:.1}")
    }
}
