//! The lenient parser: JSON with everything fastjson forgives.
//!
//! Beyond JSON it takes unquoted and single-quoted names and strings, comments, missing and
//! trailing commas' usual places (`[1,]`, `{"a":1,}`), numbers and whole objects as map keys, and
//! the escapes `\'`, `\v`, `\xHH`, `\0`..`\7`. Cold: it builds a tree and owns every string.
#![forbid(unsafe_code)]

use super::escape;

/// Objects and arrays nested deeper than this are refused: the parser recurses.
const DEPTH_MAX: u32 = 64;

/// A parsed value. Numbers keep their text, so that 64-bit integers survive.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    Array(Vec<Value>),
    /// In the order of the text; keys are usually [`Value::Text`] but may be numbers or objects.
    Object(Vec<(Value, Value)>),
}

/// What stopped the parser, with the byte position in the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not JSON at byte {at}: {what}")]
pub struct JsonError {
    pub at: usize,
    pub what: &'static str,
}

impl Value {
    /// Parses the whole text; blanks and comments may surround the value.
    pub(crate) fn parse(text: &str) -> Result<Self, JsonError> {
        let mut parser = Parser { text, at: 0 };
        let value = parser.value(0)?;
        match parser.peek() {
            None => Ok(value),
            Some(_) => Err(parser.error("text after the value")),
        }
    }

    /// The text form fastjson gives a scalar or container where a string is wanted; `None` is null.
    pub(crate) fn into_text(self) -> Option<String> {
        match self {
            Self::Null => None,
            Self::Text(text) | Self::Number(text) => Some(text),
            other => Some(other.to_standard()),
        }
    }

    /// Standard JSON; keys that are not strings are quoted: `{1:2}` becomes `{"1":2}` and
    /// `{{"a":1}:2}` becomes `{"{\"a\":1}":2}`.
    pub(crate) fn to_standard(&self) -> String {
        let mut out = Vec::new();
        self.write_standard(&mut out);
        // Unreachable loss: only `str`s and ASCII were written.
        String::from_utf8_lossy(&out).into_owned()
    }

    fn write_standard(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Bool(true) => out.extend_from_slice(b"true"),
            Self::Bool(false) => out.extend_from_slice(b"false"),
            Self::Number(text) => out.extend_from_slice(text.as_bytes()),
            Self::Text(text) => escape::write_quoted(out, text),
            Self::Array(items) => {
                out.push(b'[');
                for (index, item) in items.iter().enumerate() {
                    if 0 < index {
                        out.push(b',');
                    }
                    item.write_standard(out);
                }
                out.push(b']');
            }
            Self::Object(members) => {
                out.push(b'{');
                for (index, (key, value)) in members.iter().enumerate() {
                    if 0 < index {
                        out.push(b',');
                    }
                    match key {
                        Self::Text(name) => escape::write_quoted(out, name),
                        other => escape::write_quoted(out, &other.to_standard()),
                    }
                    out.push(b':');
                    value.write_standard(out);
                }
                out.push(b'}');
            }
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn error(&self, what: &'static str) -> JsonError {
        JsonError { at: self.at, what }
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or("")
    }

    /// The next byte after blanks and comments, not consumed.
    fn peek(&mut self) -> Option<u8> {
        loop {
            let skipped = match self.byte()? {
                b' ' | b'\t' | b'\n' | b'\r' | 0x0c | 0x08 => 1,
                b'/' if self.rest().starts_with("/*") => self.rest().find("*/")? + 2,
                b'/' if self.rest().starts_with("//") => self.rest().find('\n')? + 1,
                other => return Some(other),
            };
            self.at += skipped;
        }
    }

    fn take(&mut self, wanted: u8) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    fn value(&mut self, depth: u32) -> Result<Value, JsonError> {
        if DEPTH_MAX < depth {
            return Err(self.error("nested too deeply"));
        }
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(quote @ (b'"' | b'\'')) => Ok(Value::Text(self.string(quote)?)),
            Some(b'-' | b'+' | b'.' | b'0'..=b'9') => self.number(),
            Some(_) => self.word(),
            None => Err(self.error("a value is missing")),
        }
    }

    fn object(&mut self, depth: u32) -> Result<Value, JsonError> {
        self.at += 1;
        let mut members = Vec::new();
        loop {
            while self.take(b',') {}
            if self.take(b'}') {
                return Ok(Value::Object(members));
            }
            let key = match self.peek() {
                Some(byte) if is_name_byte(byte) && !byte.is_ascii_digit() => {
                    Value::Text(self.name())
                }
                _ => self.value(depth + 1)?,
            };
            if !self.take(b':') {
                return Err(self.error("a colon is missing"));
            }
            members.push((key, self.value(depth + 1)?));
            if !matches!(self.peek(), Some(b',' | b'}')) {
                return Err(self.error("a comma or closing brace is missing"));
            }
        }
    }

    fn array(&mut self, depth: u32) -> Result<Value, JsonError> {
        self.at += 1;
        let mut items = Vec::new();
        loop {
            while self.take(b',') {}
            if self.take(b']') {
                return Ok(Value::Array(items));
            }
            items.push(self.value(depth + 1)?);
            if !matches!(self.peek(), Some(b',' | b']')) {
                return Err(self.error("a comma or closing bracket is missing"));
            }
        }
    }

    fn name(&mut self) -> String {
        let len = self
            .rest()
            .bytes()
            .take_while(|byte| is_name_byte(*byte))
            .count();
        let name = self.rest().get(..len).unwrap_or("").to_owned();
        self.at += len;
        name
    }

    fn word(&mut self) -> Result<Value, JsonError> {
        let start = self.at;
        match self.name().as_str() {
            "null" | "NaN" | "undefined" => Ok(Value::Null),
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => Err(JsonError {
                at: start,
                what: "an unknown word",
            }),
        }
    }

    /// Any run of number characters that Rust can read; kept in a form standard JSON allows.
    fn number(&mut self) -> Result<Value, JsonError> {
        let is_number_byte =
            |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        let len = self.rest().bytes().take_while(is_number_byte).count();
        let text = self.rest().get(..len).unwrap_or("");
        let number = if let Ok(whole) = text.parse::<i128>() {
            whole.to_string()
        } else {
            match text.parse::<f64>() {
                Ok(number) if number.is_finite() && serde_json::from_str::<f64>(text).is_ok() => {
                    text.to_owned()
                }
                Ok(number) if number.is_finite() => number.to_string(),
                _ => return Err(self.error("not a number")),
            }
        };
        self.at += len;
        // Java type suffixes, as in 5L.
        if matches!(self.byte(), Some(b'L' | b'S' | b'B' | b'F' | b'D')) {
            self.at += 1;
        }
        Ok(Value::Number(number))
    }

    fn string(&mut self, quote: u8) -> Result<String, JsonError> {
        self.at += 1;
        let mut text = String::new();
        loop {
            let rest = self.rest();
            let Some(len) = memchr::memchr2(quote, b'\\', rest.as_bytes()) else {
                return Err(self.error("a string does not end"));
            };
            text.push_str(rest.get(..len).unwrap_or(""));
            self.at += len;
            if self.byte() == Some(quote) {
                self.at += 1;
                return Ok(text);
            }
            let Some((c, len)) =
                read_lenient_escape(self.text.as_bytes().get(self.at + 1..).unwrap_or_default())
            else {
                return Err(self.error("an unknown escape"));
            };
            text.push(c);
            self.at += 1 + len;
        }
    }
}

fn read_lenient_escape(bytes: &[u8]) -> Option<(char, usize)> {
    match bytes.first()? {
        b'\'' => Some(('\'', 1)),
        b'v' => Some(('\u{b}', 1)),
        digit @ b'0'..=b'7' => Some((char::from(digit - b'0'), 1)),
        b'x' => {
            let high = char::from(*bytes.get(1)?).to_digit(16)?;
            let low = char::from(*bytes.get(2)?).to_digit(16)?;
            Some((char::from_u32(high << 4 | low)?, 3))
        }
        _ => escape::read_escape(bytes),
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || 0x80 <= byte
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn standard(text: &str) -> String {
        Value::parse(text)
            .map(|value| value.to_standard())
            .unwrap_or_else(|error| error.to_string())
    }

    #[test]
    fn forgives_what_fastjson_forgives() {
        assert_eq!(
            standard(" /* c */ {code:10,'flag':\"2\",/* x */\"a\":[1,2,],} "),
            r#"{"code":10,"flag":"2","a":[1,2]}"#
        );
        assert_eq!(standard(r#"{0:"x",1:"y"}"#), r#"{"0":"x","1":"y"}"#);
        assert_eq!(
            standard(r#"{{"brokerName":"b","queueId":1,"topic":"T"}:6}"#),
            r#"{"{\"brokerName\":\"b\",\"queueId\":1,\"topic\":\"T\"}":6}"#
        );
        assert_eq!(
            standard(r#"{"a":'it\'s',"b":9223372036854775807,"c":1.5,"d":null,"e":true}"#),
            r#"{"a":"it's","b":9223372036854775807,"c":1.5,"d":null,"e":true}"#
        );
    }

    #[test]
    fn refuses_what_has_no_meaning() {
        for text in [
            "",
            "{",
            "}",
            "[1",
            "{a}",
            "{\"a\":}",
            "{\"a\":1 \"b\":2}",
            "nope",
            "\"x",
            "1 2",
            "--1",
            "/* ",
        ] {
            assert!(Value::parse(text).is_err(), "{text}");
        }
        assert!(Value::parse(&"[".repeat(100_000)).is_err());
    }

    proptest! {
        #[test]
        fn junk_never_panics(text in any::<String>(), tokens in "[\\[\\]{}:,\"'\\\\/*0-9a-z \\-.u]{0,60}") {
            let _either = Value::parse(&text);
            if let Ok(value) = Value::parse(&tokens) {
                let text = value.to_standard();
                prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{}", text);
            }
        }
    }
}
