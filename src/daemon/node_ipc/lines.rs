//! Lines out of a stream, of bounded length.

/// A longer line is passed over: Node's own messages are short, and a worker may send whatever it likes.
pub(super) const LINE_MAX: usize = 64 * 1024;

/// The line that has begun.
#[derive(Debug, Default)]
pub(super) struct Lines {
    begun: Vec<u8>,
    /// It is too long already.
    skipping: bool,
}

impl Lines {
    /// Hand out every line that these bytes complete.
    pub(super) fn take_in(&mut self, bytes: &[u8], mut line: impl FnMut(&[u8])) {
        let mut parts = bytes.split(|byte| *byte == b'\n');
        // What follows the last end of line has no end yet.
        let rest = parts.next_back().unwrap_or_default();
        for part in parts {
            self.append(part);
            let Self { begun, skipping } = std::mem::take(self);
            if !skipping {
                line(&begun);
            }
        }
        self.append(rest);
    }

    fn append(&mut self, part: &[u8]) {
        self.skipping |= self.begun.len() + part.len() > LINE_MAX;
        if self.skipping {
            self.begun = Vec::new();
        } else {
            self.begun.extend_from_slice(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let (mut lines, mut seen) = (Lines::default(), Vec::new());
        chunks.iter().for_each(|chunk| lines.take_in(chunk, |line| seen.push(line.to_vec())));
        assert!(lines.begun.len() <= LINE_MAX);
        seen
    }

    #[test]
    fn chunks_and_lines_end_where_they_like() {
        assert_eq!(lines(&[b"a\nb", b"c\n\nd", b"", b"\n", b"e"]), [&b"a"[..], b"bc", b"", b"d"]);
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over() {
        let long = [b'x'; LINE_MAX + 1];
        let longest = [b'y'; LINE_MAX];
        assert_eq!(lines(&[b"a\n", &long, &long, b"\nb\n"]), [b"a", b"b"]);
        assert_eq!(lines(&[&long[1..], b"xx\nb\n"]), [b"b"]);
        assert_eq!(lines(&[&longest, b"\nb\n"]), [&longest[..], b"b"]);
    }
}
