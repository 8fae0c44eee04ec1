//! One message, and what Node expects in return.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Node makes them of addresses. What is longer is none of Node's, and an answer stays so short that the channel takes
/// it whole or not at all.
const KEY_MAX: usize = 256;

/// As much of a JSON document as means something here; the rest is read and not kept.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Document {
    /// Where it is a string.
    text: Option<String>,
    /// `cmd`, which Node keeps for itself where it begins with `NODE_`.
    command: Option<String>,
    /// `type`
    kind: Option<String>,
    /// `key`, in Node's own messages.
    key: Option<String>,
    /// `msg`, in Node's own messages: what the program itself has sent.
    inner: Option<Box<Self>>,
}

impl Document {
    /// Nothing of what is no JSON.
    pub(super) fn read(line: &[u8]) -> Self {
        serde_json::from_slice(line).unwrap_or_default()
    }

    /// `process.send('ready')`, as PM2 wants it, or `process.send({ type: 'ready' })`.
    pub(super) fn is_ready(&self) -> bool {
        match self.internal() {
            None => self.text.as_deref() == Some("ready") || self.kind.as_deref() == Some("ready"),
            Some("NODE_HANDLE") => self.inner.as_ref().is_some_and(|inner| inner.is_ready()),
            Some(_) => false,
        }
    }

    /// A socket came along.
    pub(super) fn has_handle(&self) -> bool {
        self.internal() == Some("NODE_HANDLE")
    }

    /// What Node waits for. A handle is acknowledged though it is refused: until then Node holds back everything that
    /// is sent after it, and what is refused outright it sends again. Nor does a server that has sent its connections
    /// away close before it hears that they are closed.
    pub(super) fn reply(&self) -> Option<String> {
        let about = |answer: &str| {
            let key = self.key.as_deref().filter(|key| key.len() <= KEY_MAX)?;
            let key = serde_json::to_string(key).ok()?;
            Some(format!("{{\"cmd\":\"{answer}\",\"key\":{key},\"count\":0}}\n"))
        };
        match self.internal()? {
            "NODE_HANDLE" => Some("{\"cmd\":\"NODE_HANDLE_ACK\"}\n".to_owned()),
            "NODE_SOCKET_NOTIFY_CLOSE" => about("NODE_SOCKET_ALL_CLOSED"),
            "NODE_SOCKET_GET_COUNT" => about("NODE_SOCKET_COUNT"),
            _ => None,
        }
    }

    fn internal(&self) -> Option<&str> {
        self.command.as_deref().filter(|command| command.starts_with("NODE_"))
    }
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

/// Keeps what a [`Document`] has a place for: a tree of all of it would take many times the line's memory.
struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Document;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Document, E> {
        Ok(Document { text: Some(text.to_owned()), ..Document::default() })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
        let mut document = Document::default();
        while let Some(name) = map.next_key::<Cow<'_, str>>()? {
            match name.as_ref() {
                "cmd" => document.command = map.next_value::<Document>()?.text,
                "type" => document.kind = map.next_value::<Document>()?.text,
                "key" => document.key = map.next_value::<Document>()?.text,
                "msg" => document.inner = Some(Box::new(map.next_value()?)),
                _ => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(document)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Document, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Document::default())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Document, E> {
        Ok(Document::default())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Document, E> {
        Ok(Document::default())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Document, E> {
        Ok(Document::default())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Document, E> {
        Ok(Document::default())
    }

    fn visit_unit<E: Error>(self) -> Result<Document, E> {
        Ok(Document::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Document {
        Document::read(line.as_bytes())
    }

    #[test]
    fn ready_is_a_string_or_a_type() {
        for line in [
            r#""ready""#,
            r#"{"type":"ready"}"#,
            r#"{"pid":7,"list":[1,{"a":null}],"type":"ready","ok":true,"load":0.5,"below":-1}"#,
            r#"{"cmd":"start","type":"ready"}"#,
            r#"{"cmd":"NODE_HANDLE","type":"net.Server","msg":"ready"}"#,
            r#"{"cmd":"NODE_HANDLE","type":"net.Server","msg":{"type":"ready"}}"#,
        ] {
            assert!(read(line).is_ready(), "{line}");
        }
        for line in [
            "",
            "ready",
            r#""Ready""#,
            r#"["ready"]"#,
            r#"{"ready":true}"#,
            r#"{"type":["ready"]}"#,
            r#"{"msg":"ready"}"#,
            r#"{"cmd":"NODE_x","type":"ready"}"#,
            r#"{"type":"ready""#,
            r#""ready" "ready""#,
            "null",
            "7",
            "\u{fffd}",
        ] {
            assert!(!read(line).is_ready(), "{line}");
        }
        assert_eq!(Document::read(b"\xff\"ready\""), Document::default());
    }

    #[test]
    fn node_gets_the_answers_that_it_waits_for() {
        let reply = |line: &str| read(line).reply();
        assert_eq!(reply(r#"{"type":"x"}"#), None);
        assert_eq!(reply(r#"{"cmd":"NODE_HANDLE_ACK"}"#), None);
        assert_eq!(
            reply(r#"{"cmd":"NODE_HANDLE","type":"net.Server"}"#).as_deref(),
            Some("{\"cmd\":\"NODE_HANDLE_ACK\"}\n")
        );
        assert_eq!(
            reply(r#"{"cmd":"NODE_SOCKET_NOTIFY_CLOSE","key":"6:\":0"}"#).as_deref(),
            Some("{\"cmd\":\"NODE_SOCKET_ALL_CLOSED\",\"key\":\"6:\\\":0\",\"count\":0}\n")
        );
        assert_eq!(reply(r#"{"cmd":"NODE_SOCKET_GET_COUNT"}"#), None);
        let long = "k".repeat(KEY_MAX + 1);
        assert_eq!(reply(&format!(r#"{{"cmd":"NODE_SOCKET_GET_COUNT","key":"{long}"}}"#)), None);
    }

    #[test]
    fn depth_is_bounded() {
        assert_eq!(read(&"[".repeat(60_000)), Document::default());
        assert_eq!(read(&r#"{"msg":"#.repeat(8_000)), Document::default());
    }
}
