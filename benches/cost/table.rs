//! Lines of figures, and what is to be said of them at the end.

use crate::stats::Series;
use crate::subject::{REFERENCE, Subject};

/// What a figure must not exceed.
#[derive(Clone, Copy)]
pub(crate) enum Bar {
    /// So many times the figure of whom it is compared with.
    Ratio(f64),
    /// So many times the figure of whom it is compared with is the least.
    AtLeast(f64),
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
    /// The steadiest of a series, or its worst: what the head of the table says.
    other: Option<f64>,
    ratio: Option<f64>,
    /// Between which the ratios of most rounds are.
    ratios: Option<(f64, f64)>,
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
            other: None,
            ratio: None,
            ratios: None,
            beside: REFERENCE,
            bar,
        }
    }

    fn verdict(&self) -> Verdict {
        let within: (Option<f64>, &dyn Fn(f64) -> bool) = match &self.bar {
            Bar::None => return Verdict::None,
            Bar::Value(bar) => (Some(self.value), &|figure| figure <= *bar),
            Bar::Ratio(bar) => (self.ratio, &|figure| figure <= *bar),
            Bar::AtLeast(bar) => (self.ratio, &|figure| figure >= *bar),
        };
        match within {
            (Some(figure), is_within) if figure.is_finite() => {
                if is_within(figure) {
                    Verdict::Ok
                } else {
                    Verdict::Over
                }
            }
            _ => Verdict::Unknown,
        }
    }

    fn bar(&self) -> String {
        match self.bar {
            Bar::None => String::new(),
            Bar::Value(bar) => format!("<= {bar}"),
            Bar::Ratio(bar) => format!("<= {bar} x {}", self.beside),
            Bar::AtLeast(bar) => format!(">= {bar} x {}", self.beside),
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
        let ratios = self.ratios.map_or_else(String::new, |(low, high)| format!("{low:.2}-{high:.2}"));
        let line = format!(
            "  {:<14} {:>10} {:>10} {:>10} {ratios:>11}   {:<20} {verdict}",
            self.subject,
            short(self.value),
            optional(self.other),
            self.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
            self.bar(),
        );
        println!("{}", line.trim_end());
    }

    /// What the summary says of a row that is over its bar.
    fn excess(&self) -> String {
        let figure = match self.bar {
            Bar::Ratio(_) | Bar::AtLeast(_) => format!("{:.2}", self.ratio.unwrap_or(f64::NAN)),
            _ => short(self.value),
        };
        format!("{} of {}: {figure}, bar {}", self.measure, self.subject, self.bar())
    }
}

/// Print the figures of one measure that was taken in rounds.
pub(crate) fn rounds(measure: &str, unit: &str, series: &[Series], bar: Bar) -> Vec<Row> {
    rounds_beside(REFERENCE, measure, unit, series, |_| bar)
}

/// The same beside somebody else than tini.
pub(crate) fn rounds_beside(
    beside: &'static str,
    measure: &str,
    unit: &str,
    series: &[Series],
    bar: impl Fn(&Subject) -> Bar,
) -> Vec<Row> {
    of_series(beside, measure, unit, series, bar, ("p10", 0.1))
}

/// The same where it is the worst round that counts beside the median.
pub(crate) fn worst_of_rounds(
    beside: &'static str,
    measure: &str,
    unit: &str,
    series: &[Series],
    bar: impl Fn(&Subject) -> Bar,
) -> Vec<Row> {
    of_series(beside, measure, unit, series, bar, ("worst", 1.0))
}

fn of_series(
    beside: &'static str,
    measure: &str,
    unit: &str,
    series: &[Series],
    bar: impl Fn(&Subject) -> Bar,
    (other, quantile): (&str, f64),
) -> Vec<Row> {
    let reference = series.iter().find(|series| series.subject.name == beside);
    let row = |series: &Series| Row {
        other: Some(series.quantile(quantile)),
        ratio: reference.map(|reference| series.ratio_to(reference, 0.5)),
        ratios: reference.map(|reference| (series.ratio_to(reference, 0.1), series.ratio_to(reference, 0.9))),
        beside,
        ..Row::of(measure, &series.subject, series.median(), bar(&series.subject))
    };
    let rows: Vec<_> = series.iter().map(row).collect();
    let count = series.first().map_or(0, |series| series.values.len());
    print(&format!("{measure}, {unit} ({count} rounds)"), other, &rows);
    rows
}

/// Print figures that were taken once.
pub(crate) fn once(measure: &str, unit: &str, mut rows: Vec<Row>) -> Vec<Row> {
    let reference = rows.iter().find(|row| row.subject == REFERENCE).map(|row| row.value);
    if let Some(reference) = reference.filter(|reference| *reference > 0.0) {
        rows.iter_mut().for_each(|row| row.ratio = Some(row.value / reference));
    }
    print(&format!("{measure}, {unit}"), "p10", &rows);
    rows
}

fn print(title: &str, other: &str, rows: &[Row]) {
    println!("\n{title}");
    let beside = format!("x {}", rows.first().map_or(REFERENCE, |row| row.beside));
    let ratios = if rows.iter().any(|row| row.ratios.is_some()) { "p10-p90" } else { "" };
    println!("  {:<14} {:>10} {other:>10} {beside:>10} {ratios:>11}   bar", "", "median");
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
