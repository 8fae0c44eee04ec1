//! The two text formats of metrics: which one a scraper wants, and OpenMetrics turned into the classic one.

use std::fmt::Write;

/// How metrics are written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    OpenMetrics,
    /// Prometheus' own, version 0.0.4.
    Classic,
}

impl Format {
    /// OpenMetrics for those who ask for it by name.
    pub(super) fn accepted(accept: &str) -> Self {
        let wanted = accept.split(',').any(|range| {
            let mut parts = range.split(';').map(str::trim);
            let named =
                parts.next().is_some_and(|name| name.eq_ignore_ascii_case("application/openmetrics-text"));
            named && !parts.any(|part| part.strip_prefix("q=").and_then(|q| q.parse().ok()) == Some(0.0))
        });
        if wanted { Self::OpenMetrics } else { Self::Classic }
    }

    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// OpenMetrics names a family, the classic format its samples; and the latter knows fewer types and no end.
pub(super) fn classic(open_metrics: &str) -> String {
    let mut out = String::with_capacity(open_metrics.len() + 1024);
    let mut help = None;
    for line in open_metrics.lines() {
        // Writing to a String cannot fail.
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "stateset" => ("", "gauge"),
                "unknown" => ("", "untyped"),
                other => ("", other),
            };
            if let Some((_, text)) = help.take().filter(|(helped, _)| *helped == name) {
                let _ = writeln!(out, "# HELP {name}{suffix} {text}");
            }
            let _ = writeln!(out, "# TYPE {name}{suffix} {kind}");
        } else if !line.starts_with('#') {
            let _ = writeln!(out, "{line}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_has_to_be_asked_for() {
        for accept in [
            "application/openmetrics-text",
            "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "text/plain, Application/OpenMetrics-Text; version=0.0.1",
        ] {
            assert_eq!(Format::accepted(accept), Format::OpenMetrics, "{accept}");
        }
        for accept in
            ["", "*/*", "text/plain;version=0.0.4", "application/openmetrics-text;q=0", "application/json"]
        {
            assert_eq!(Format::accepted(accept), Format::Classic, "{accept}");
        }
    }

    #[test]
    fn families_become_samples() {
        let open = "# HELP a_seconds How long.\n# TYPE a_seconds counter\n# UNIT a_seconds seconds\n\
                    a_seconds_total 1.5\n# HELP b Which.\n# TYPE b info\nb_info{v=\"1 # HELP\"} 1\n\
                    # TYPE c gauge\nc{d=\"e\"} 2\n# EOF\n";
        let expected = "# HELP a_seconds_total How long.\n# TYPE a_seconds_total counter\na_seconds_total 1.5\n\
                        # HELP b_info Which.\n# TYPE b_info gauge\nb_info{v=\"1 # HELP\"} 1\n\
                        # TYPE c gauge\nc{d=\"e\"} 2\n";
        assert_eq!(classic(open), expected);
    }
}
