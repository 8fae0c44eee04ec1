//! What a late connection speaks, told by its first bytes, however they are cut up.
//!
//! No more of a request is understood than what the answer depends on: that it is HTTP/1, that its head is over, and
//! whether its answer may have a body. Nothing of it is kept but its first bytes, so a thousand of them cost nothing.

/// What it begins with who knows beforehand that HTTP/2 is spoken: RFC 9113, 3.4.
const PREFACE: [u8; 24] = *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A longer head is taken for complete.
const HEAD_MAX: usize = 64 * 1024;

/// With what the line of an HTTP/1 request ends, but for the last digit.
const VERSION: [u8; 8] = *b" HTTP/1.";

/// What the answer goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoken {
    /// A request; the answer to a HEAD has no body.
    Http1 {
        is_head: bool,
    },
    Http2,
    /// TLS, or whatever else.
    Other,
}

/// Reads until it knows.
#[derive(Debug, Default)]
pub(super) struct Reader {
    part: Part,
    /// Of the request's line.
    first: [u8; PREFACE.len()],
    /// The last of it.
    last: [u8; VERSION.len() + 1],
    /// Of the line so far, without its end.
    length: usize,
    total: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
    /// Empty lines before it are none of it: RFC 9112, 2.2.
    #[default]
    Line,
    Preface,
    Fields,
}

impl Reader {
    /// Says what is spoken, once that is clear.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Option<Spoken> {
        bytes.iter().find_map(|byte| self.step(*byte))
    }

    pub(super) fn has_nothing(&self) -> bool {
        self.total == 0
    }

    /// As far as is known, when no more comes.
    pub(super) fn conclude(&self) -> Spoken {
        match self.part {
            Part::Fields => Spoken::Http1 { is_head: self.is_head() },
            Part::Line | Part::Preface => Spoken::Other,
        }
    }

    fn step(&mut self, byte: u8) -> Option<Spoken> {
        self.total += 1;
        if self.total > HEAD_MAX {
            return Some(self.conclude());
        }
        match self.part {
            Part::Line => self.step_in_line(byte),
            Part::Preface => self.step_in_preface(byte),
            Part::Fields => self.step_in_fields(byte),
        }
    }

    fn step_in_line(&mut self, byte: u8) -> Option<Spoken> {
        match byte {
            b'\r' => None,
            b'\n' if self.length == 0 => None,
            b'\n' => self.end_line(),
            // Whatever is not text is TLS, or nothing that we know.
            0..=b' ' | 0x7f if byte != b' ' || self.length == 0 => Some(Spoken::Other),
            _ => {
                if let Some(place) = self.first.get_mut(self.length) {
                    *place = byte;
                }
                self.last.rotate_left(1);
                if let Some(place) = self.last.last_mut() {
                    *place = byte;
                }
                self.length += 1;
                None
            }
        }
    }

    fn end_line(&mut self) -> Option<Spoken> {
        const LINE: usize = 14;
        if self.length == LINE && self.first.starts_with(PREFACE.first_chunk::<LINE>()?) {
            self.part = Part::Preface;
            // With the end of the line, which may have been spelled otherwise.
            self.length = LINE + 2;
            return None;
        }
        self.length = 0;
        let [version @ .., digit] = self.last;
        if version != VERSION || !digit.is_ascii_digit() {
            return Some(Spoken::Other);
        }
        self.part = Part::Fields;
        None
    }

    fn step_in_preface(&mut self, byte: u8) -> Option<Spoken> {
        if PREFACE.get(self.length) != Some(&byte) {
            return Some(Spoken::Other);
        }
        self.length += 1;
        (self.length == PREFACE.len()).then_some(Spoken::Http2)
    }

    fn step_in_fields(&mut self, byte: u8) -> Option<Spoken> {
        match byte {
            b'\n' if self.length == 0 => return Some(self.conclude()),
            b'\n' => self.length = 0,
            b'\r' => {}
            _ => self.length += 1,
        }
        None
    }

    fn is_head(&self) -> bool {
        self.first.starts_with(b"HEAD ")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REQUEST: Spoken = Spoken::Http1 { is_head: false };

    const WORDS: [&str; 11] = [
        "GET / HTTP/1.1",
        "HEAD",
        " ",
        "\r\n",
        "\n",
        "\r",
        "PRI * HTTP/2.0",
        "SM",
        "Host: a",
        " HTTP/1.",
        "\0",
    ];

    fn spoken(bytes: &[u8]) -> Option<Spoken> {
        Reader::default().take(bytes)
    }

    #[test]
    fn a_request_is_one_once_its_head_is_over() {
        for head in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.0\r\n\r\n",
            "POST /upload HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\nHost: a\n\n",
            "GET /\u{e4} HTTP/1.1\r\n\r\n",
            "PRI * HTTP/1.1\r\n\r\n",
        ] {
            assert_eq!(spoken(head.as_bytes()), Some(REQUEST), "{head:?}");
            let all_but_one = &head.as_bytes()[..head.len() - 1];
            assert_eq!(spoken(all_but_one), None, "{head:?}");
        }
        assert_eq!(spoken(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"), Some(Spoken::Http1 { is_head: true }));
        assert_eq!(spoken(b"HEADER / HTTP/1.1\r\nHost: a\r\n\r\n"), Some(REQUEST));
    }

    #[test]
    fn what_follows_the_first_request_does_not_matter() {
        assert_eq!(spoken(b"GET /1 HTTP/1.1\r\n\r\nHEAD /2 HTTP/1.1\r\n\r\n"), Some(REQUEST));
        assert_eq!(spoken(b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\n\0\0\0\0"), Some(REQUEST));
    }

    #[test]
    fn the_preface_of_http_2_is_known() {
        assert_eq!(spoken(&PREFACE), Some(Spoken::Http2));
        assert_eq!(spoken(&PREFACE[..23]), None);
        assert_eq!(spoken(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r "), Some(Spoken::Other));
        assert_eq!(spoken(b"PRI * HTTP/2.0\r\nHost: a\r\n"), Some(Spoken::Other));
    }

    #[test]
    fn everything_else_is_something_else() {
        // TLS, SSH, PROXY, HTTP/0.9, a version that is none, a control character.
        for bytes in [
            &b"\x16\x03\x01\x02\x00"[..],
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"\r\n\r\n\0\r\nQUIT\n",
            b"GET /\r\n",
            b"GET / HTTP/1.x\r\n",
            b"GET / HTTP/2.0\r\n",
            b" GET / HTTP/1.1\r\n",
            b"GET /\t HTTP/1.1\r\n",
            b"x HTTP/1.\r\n",
        ] {
            assert_eq!(spoken(bytes), Some(Spoken::Other), "{bytes:?}");
        }
    }

    #[test]
    fn a_head_without_end_has_one() {
        let line = b"GET / HTTP/1.1\r\n";
        let fields: Vec<u8> = line.iter().copied().chain(b"a: b\r\n".repeat(HEAD_MAX)).collect();
        assert_eq!(spoken(&fields), Some(REQUEST));
        assert_eq!(spoken(&b"a".repeat(HEAD_MAX + 1)), Some(Spoken::Other));
        assert_eq!(spoken(&b"\r\n".repeat(HEAD_MAX)), Some(Spoken::Other));
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_the_bytes_are_cut_up(
            bytes in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..200),
                // Words that mean something, in any order.
                proptest::collection::vec(proptest::sample::select(&WORDS[..]), 0..12)
                    .prop_map(|words| words.concat().into_bytes()),
            ],
            cuts in proptest::collection::vec(1_usize..20, 0..40),
        ) {
            let whole = spoken(&bytes);
            let mut reader = Reader::default();
            let mut rest = &bytes[..];
            let mut said = None;
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let (part, left) = rest.split_at(cut.min(rest.len()));
                rest = left;
                said = said.or_else(|| reader.take(part));
            }
            prop_assert_eq!(said, whole);
        }

        #[test]
        fn every_request_is_known(
            method in "[A-Z]{1,30}",
            target in "/[!-~]{0,80}",
            minor in 0..10,
            fields in proptest::collection::vec("[A-Za-z-]{1,20}: [ -~]{0,60}", 0..8),
            body in proptest::collection::vec(any::<u8>(), 0..50),
        ) {
            let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
            let head = format!("{method} {target} HTTP/1.{minor}\r\n{fields}\r\n");
            let bytes = [head.as_bytes(), &body].concat();
            prop_assert_eq!(spoken(&bytes), Some(Spoken::Http1 { is_head: method == "HEAD" }));
        }
    }
}
