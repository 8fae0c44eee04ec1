//! Sizes of memory as Kubernetes writes them: `512Mi`, `1Gi`, `64M`, `1.5G`, `1048576`.

/// Powers of 1024 and of 1000; a `k` is small there.
const UNITS: [(&str, u64); 8] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
];

/// In bytes.
///
/// # Errors
/// What a size looks like.
pub fn parse(text: &str) -> Result<u64, String> {
    let wrong =
        || format!("'{text}' is no size; takes bytes, or a number with a unit such as 512Mi, 1Gi, 64M");
    let unit = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit);
    let scale = if unit.is_empty() {
        1
    } else {
        UNITS.iter().find(|(name, _)| *name == unit).map(|(_, scale)| *scale).ok_or_else(wrong)?
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let bytes = number * scale as f64;
    // More than there can be.
    if bytes < 1.0 || bytes >= (1_u64 << 60) as f64 { Err(wrong()) } else { Ok(bytes as u64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_kubernetes() {
        let sizes = ["1", "512Mi", "1Gi", "64M", "1.5G", "100k", "2Ki"].map(|text| parse(text).unwrap());
        assert_eq!(sizes, [1, 512 << 20, 1 << 30, 64_000_000, 1_500_000_000, 100_000, 2048]);
        for text in ["", "0", "Mi", "-1", "1K", "1mi", "1 Gi", "1.2.3M", "9999999T", "0.1"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
