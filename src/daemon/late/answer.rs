//! What a late connection is told, put together once.

use std::time::Duration;

use serde::de::IgnoredAny;

/// SETTINGS without any, and GOAWAY: the last stream that was looked at is 0, and there was no error, so whatever the
/// client has asked for may be asked for again elsewhere. RFC 9113, 6.5, 6.8 and 8.7.
const GOAWAY: [u8; 26] = [
    0, 0, 0, 4, 0, 0, 0, 0, 0, // SETTINGS
    0, 0, 8, 7, 0, 0, 0, 0, 0, // GOAWAY of eight bytes
    0, 0, 0, 0, 0, 0, 0, 0, // last stream, NO_ERROR
];

/// SETTINGS alone.
const SETTINGS: usize = 9;

/// Between the two. Clients that hear both at once may have lost the second by the time they look for it, and wait for ever on
/// a connection that they take for a good one (gRPC's core, one in fifty).
const PAUSE: Duration = Duration::from_millis(50);

/// Of how many kinds answers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Unavailable {
        is_head: bool,
    },
    GoAway,
    /// The connection's end, and not a word.
    Close,
}

#[derive(Debug)]
pub(super) struct Answers {
    unavailable: Vec<u8>,
    head: usize,
}

impl Answers {
    /// 503 with this body, and when to come back.
    pub(super) fn new(body: &str, retry_after: Option<Duration>) -> Self {
        let kind = match serde_json::from_str::<IgnoredAny>(body) {
            Ok(_) => "application/json",
            Err(_) => "text/plain; charset=utf-8",
        };
        let mut text = String::from("HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n");
        if let Some(after) = retry_after {
            // Whole seconds, and not before it is time.
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            text += &format!("Retry-After: {seconds}\r\n");
        }
        text += &format!("Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n", body.len());
        let head = text.len();
        text += body;
        Self { unavailable: text.into_bytes(), head }
    }

    /// What may have been said of it after so long.
    pub(super) fn due(&self, answer: Answer, after: Duration) -> &[u8] {
        match answer {
            Answer::GoAway if after < PAUSE => GOAWAY.get(..SETTINGS).unwrap_or_default(),
            Answer::GoAway | Answer::Unavailable { .. } | Answer::Close => self.bytes(answer),
        }
    }

    pub(super) fn bytes(&self, answer: Answer) -> &[u8] {
        match answer {
            Answer::Unavailable { is_head: false } => &self.unavailable,
            Answer::Unavailable { is_head: true } => self.unavailable.get(..self.head).unwrap_or_default(),
            Answer::GoAway => &GOAWAY,
            Answer::Close => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(answers: &Answers, is_head: bool) -> String {
        String::from_utf8(answers.bytes(Answer::Unavailable { is_head }).to_vec()).unwrap()
    }

    #[test]
    fn json_is_said_to_be_json() {
        let answers = Answers::new("{\"error\":\"ä\"}", Some(Duration::from_secs(1)));
        let head = "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\n\
                    Content-Type: application/json\r\nContent-Length: 14\r\n\r\n";
        assert_eq!(text(&answers, false), format!("{head}{{\"error\":\"ä\"}}"));
        assert_eq!(text(&answers, true), head);
    }

    #[test]
    fn goaway_comes_a_while_after_settings() {
        let answers = Answers::new("", None);
        let said = |after| answers.due(Answer::GoAway, after).len();
        assert_eq!([Duration::ZERO, PAUSE].map(said), [SETTINGS, GOAWAY.len()]);
        let other = Answer::Unavailable { is_head: true };
        assert_eq!(answers.due(other, Duration::ZERO), answers.bytes(other));
    }

    #[test]
    fn anything_else_is_text() {
        let answers = Answers::new("come back", None);
        assert!(text(&answers, false).contains("\r\nContent-Type: text/plain; charset=utf-8\r\n"));
        assert!(!text(&answers, false).contains("Retry-After"));
        assert!(text(&Answers::new("", None), false).ends_with("Content-Length: 0\r\n\r\n"));
        assert!(
            text(&Answers::new("", Some(Duration::from_millis(1500))), true).contains("Retry-After: 2\r\n")
        );
    }
}
