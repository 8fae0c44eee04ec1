//! Durations as they are written: `250ms`, `10s`, `2m`, `1h30m`.

use std::time::Duration;

/// Longer than any wait that makes sense, and far from overflowing the clock.
const MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// # Errors
/// What a duration looks like.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("'{text}' is no duration; takes a number with a unit such as 250ms, 10s, 2m, 1h (or 0)");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits =
            rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|at| *at > 0).ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let units = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(units);
        let scale = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        total = Duration::try_from_secs_f64(number * scale)
            .ok()
            .and_then(|part| total.checked_add(part))
            .ok_or_else(wrong)?;
        rest = tail;
    }
    if text.is_empty() {
        Err(wrong())
    } else if total > MAX {
        Err(format!("'{text}' is longer than a year"))
    } else {
        Ok(total)
    }
}

/// `MIN..MAX`, or one duration for both.
///
/// # Errors
/// What a range looks like.
pub fn parse_range(text: &str) -> Result<(Duration, Duration), String> {
    let (min, max) = match text.split_once("..") {
        Some((min, max)) => (parse(min)?, parse(max)?),
        None => {
            let both = parse(text)?;
            (both, both)
        }
    };
    if min > max {
        return Err(format!("'{text}' is upside down; takes MIN..MAX such as 3s..15s"));
    }
    Ok((min, max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_and_sums() {
        assert_eq!(parse("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse("1h1m1s"), Ok(Duration::from_secs(3661)));
        assert_eq!(parse("0"), Ok(Duration::ZERO));
        assert_eq!(parse("0s"), Ok(Duration::ZERO));
    }

    #[test]
    fn everything_else_is_refused() {
        for text in
            ["", "10", "s", "-1s", "1d", "1 s", "ms", "1e9s", "..", "inf s", "NaNs", "99999h", "1s2", "1..2s"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ranges_go_upwards() {
        let seconds = Duration::from_secs;
        assert_eq!(parse_range("3s..15s"), Ok((seconds(3), seconds(15))));
        assert_eq!(parse_range("5s"), Ok((seconds(5), seconds(5))));
        assert!(parse_range("15s..3s").is_err());
        assert!(parse_range("3s..").is_err());
        assert!(parse_range("..3s").is_err());
    }
}
