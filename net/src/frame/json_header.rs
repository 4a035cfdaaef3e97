//! The JSON header: strict text in place first, and what fastjson forgives second.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use super::{Frame, FrameError, Language, Serialization};
use crate::ext::ExtFields;
use crate::json::lenient::Value;
use crate::json::scan::{Scanner, StringObject};
use crate::text::Text;

/// What a header without any member means.
fn empty<'a>(body: &'a [u8]) -> Frame<'a> {
    Frame {
        code: 0,
        language: Language::Java,
        version: 0,
        opaque: 0,
        flag: 0,
        remark: None,
        serialization: Serialization::Json,
        ext: ExtFields::default(),
        body,
    }
}

pub(super) fn decode<'a>(header: &'a [u8], body: &'a [u8]) -> Result<Frame<'a>, FrameError> {
    let strict = std::str::from_utf8(header).ok().and_then(|text| decode_strict(text, body));
    match strict {
        Some(frame) => Ok(frame),
        None => decode_lenient(header, body),
    }
}

/// `None`: something a plain JSON writer with the documented members would not produce.
fn decode_strict<'a>(header: &'a str, body: &'a [u8]) -> Option<Frame<'a>> {
    let mut frame = empty(body);
    let mut ext = StringObject::empty();
    let mut has_ext = false;
    let mut scanner = Scanner::new(header);
    scanner.expect(b'{')?;
    loop {
        match scanner.key()? {
            "code" => frame.code = scanner.int()?,
            "extFields" => {
                scanner.object_of_strings(&mut ext)?;
                has_ext = true;
            }
            "flag" => frame.flag = scanner.int()?,
            "language" => frame.language = strict_language(scanner.string()?)?,
            "opaque" => frame.opaque = scanner.int()?,
            "remark" => frame.remark = Some(scanner.string()?),
            "serializeTypeCurrentRPC" => drop(scanner.string()?),
            "version" => frame.version = scanner.int()?,
            _ => return None,
        }
        if !scanner.take(b',') {
            break;
        }
    }
    scanner.expect(b'}')?;
    if has_ext {
        frame.ext = ExtFields::json(ext);
    }
    scanner.is_at_end().then_some(frame)
}

fn strict_language(name: Text<'_>) -> Option<Language> {
    match name.as_plain()? {
        "JAVA" => Some(Language::Java),
        "GO" => Some(Language::Go),
        other => Some(Language::from_name(other).unwrap_or(Language::Other)),
    }
}

/// Invalid UTF-8 reads as replacement characters, members in any letter case, numbers as strings,
/// ext values of any type; the last duplicate wins, in ext fields too.
#[cold]
fn decode_lenient<'a>(header: &'a [u8], body: &'a [u8]) -> Result<Frame<'a>, FrameError> {
    let text = String::from_utf8_lossy(header);
    let Value::Object(members) = Value::parse(&text).map_err(|error| FrameError::Json(error.what))? else {
        return Err(FrameError::Json("not an object"));
    };
    let mut frame = empty(body);
    for (key, value) in members {
        let Some(name) = key.into_text() else {
            continue;
        };
        match name.to_ascii_lowercase().as_str() {
            "code" => frame.code = int(value)?,
            "extfields" => frame.ext = ext_fields(value)?,
            "flag" => frame.flag = int(value)?,
            "language" => frame.language = language(value)?,
            "opaque" => frame.opaque = int(value)?,
            "remark" => frame.remark = value.into_text().map(Text::owned),
            "version" => frame.version = int(value)?,
            _ => {}
        }
    }
    Ok(frame)
}

fn int(value: Value) -> Result<i32, FrameError> {
    const OUT_OF_RANGE: FrameError = FrameError::Json("a number is not within 32 bits");
    match value {
        Value::Null => Ok(0),
        Value::Text(text) if text.is_empty() => Ok(0),
        Value::Text(text) | Value::Number(text) => match text.parse() {
            Ok(whole) => Ok(whole),
            Err(_) => match text.parse::<f64>() {
                // Fractions are cut off; the cast is exact after the range check.
                Ok(number) if number.abs() <= f64::from(i32::MAX) => Ok(number as i32),
                _ => Err(OUT_OF_RANGE),
            },
        },
        Value::Bool(value) => Ok(value.into()),
        Value::Array(_) | Value::Object(_) => Err(FrameError::Json("a number is expected")),
    }
}

fn language(value: Value) -> Result<Language, FrameError> {
    match value {
        Value::Text(name) => Ok(Language::from_name(&name).unwrap_or(Language::Other)),
        Value::Number(ordinal) => {
            ordinal.parse().ok().and_then(Language::from_ordinal).ok_or(FrameError::Json("no such language number"))
        }
        Value::Null => Ok(Language::Other),
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => Err(FrameError::Json("a language is expected")),
    }
}

fn ext_fields<'a>(value: Value) -> Result<ExtFields<'a>, FrameError> {
    match value {
        Value::Null => Ok(ExtFields::default()),
        Value::Object(members) => {
            // The last value of a key counts, and a null undoes an earlier one.
            let mut pairs = BTreeMap::new();
            for (key, value) in members {
                let Some(key) = key.into_text() else { continue };
                pairs.insert(key, value.into_text());
            }
            Ok(ExtFields::owned(pairs.into_iter().filter_map(|(key, value)| Some((key, value?)))))
        }
        _ => Err(FrameError::Json("extFields is not an object")),
    }
}
