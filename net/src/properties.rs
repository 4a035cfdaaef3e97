//! Java property files, with the line each property stands on.
//!
//! The rules are those of `java.util.Properties`: `#` and `!` begin comments, `=`, `:` or blanks end a key, a
//! backslash escapes, and one at the end of a line continues it. A file is untrusted input: its size is bounded and
//! what cannot be read is refused with its line.

use thiserror::Error;

/// Largest property file or properties body that is read, bytes. RocketMQ's own sample files have a few KiB.
pub const PROPERTIES_BYTES_MAX: usize = 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Property {
    pub key: String,
    pub value: String,
    /// Line on which the key begins, counted from 1.
    pub line: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PropertiesError {
    #[error("{size_bytes} bytes are more than a property file may have ({PROPERTIES_BYTES_MAX})")]
    TooLarge { size_bytes: usize },
    #[error("line {line}: \\u must be followed by four hexadecimal digits that name a character")]
    BadEscape { line: u32 },
}

/// Reads all properties in the order of the file; a key that stands twice is returned twice.
///
/// The text is UTF-8, or else Latin-1, which is what Java reads.
pub fn parse(bytes: &[u8]) -> Result<Vec<Property>, PropertiesError> {
    if bytes.len() > PROPERTIES_BYTES_MAX {
        return Err(PropertiesError::TooLarge { size_bytes: bytes.len() });
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.trim_start_matches('\u{feff}').to_owned(),
        // Not UTF-8, so it is what Java takes every property file for.
        Err(_) => bytes.iter().map(|byte| char::from(*byte)).collect(),
    };
    let mut properties = Vec::new();
    let mut lines = NaturalLines { rest: Some(&text), number: 0 };
    while let Some((first, line)) = lines.next() {
        let first = first.trim_start_matches(is_blank);
        if first.is_empty() || first.starts_with(['#', '!']) {
            continue;
        }
        let mut logical = first.to_owned();
        while ends_with_continuation(&logical) {
            logical.pop();
            match lines.next() {
                Some((next, _)) => logical.push_str(next.trim_start_matches(is_blank)),
                None => break,
            }
        }
        let (key, value) = split(&logical);
        properties.push(Property { key: unescape(key, line)?, value: unescape(value, line)?, line });
    }
    Ok(properties)
}

/// Appends `key=value`, escaped so that [`parse`] and Java read the same back.
pub fn write(out: &mut String, key: &str, value: &str) {
    escape(out, key, true);
    out.push('=');
    escape(out, value, false);
    out.push('\n');
}

/// Lines as they stand in the file, ended by `\n`, `\r` or `\r\n`.
struct NaturalLines<'a> {
    rest: Option<&'a str>,
    number: u32,
}

impl<'a> Iterator for NaturalLines<'a> {
    type Item = (&'a str, u32);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest?;
        self.number += 1;
        let line = match rest.split_once(['\n', '\r']) {
            Some((line, after)) => {
                let ended_by_both = rest.get(line.len()..).is_some_and(|end| end.starts_with("\r\n"));
                self.rest = if ended_by_both { after.strip_prefix('\n') } else { Some(after) };
                line
            }
            None => {
                self.rest = None;
                rest
            }
        };
        Some((line, self.number))
    }
}

fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\u{c}')
}

fn ends_with_continuation(line: &str) -> bool {
    line.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

/// The key ends at the first unescaped `=`, `:` or blank; one separator with blanks around it is dropped.
fn split(line: &str) -> (&str, &str) {
    let mut is_escaped = false;
    let end = line.find(|character| {
        let ends = !is_escaped && (matches!(character, '=' | ':') || is_blank(character));
        is_escaped = character == '\\' && !is_escaped;
        ends
    });
    let (key, rest) = line.split_at(end.unwrap_or(line.len()));
    let rest = rest.trim_start_matches(is_blank);
    (key, rest.strip_prefix(['=', ':']).unwrap_or(rest).trim_start_matches(is_blank))
}

fn unescape(raw: &str, line: u32) -> Result<String, PropertiesError> {
    let mut text = String::with_capacity(raw.len());
    let mut characters = raw.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            text.push(character);
            continue;
        }
        match characters.next() {
            Some('t') => text.push('\t'),
            Some('n') => text.push('\n'),
            Some('r') => text.push('\r'),
            Some('f') => text.push('\u{c}'),
            Some('u') => text.push(unicode_escape(&mut characters).ok_or(PropertiesError::BadEscape { line })?),
            Some(other) => text.push(other),
            None => {}
        }
    }
    Ok(text)
}

/// What follows `\u`: one UTF-16 unit, or the first of a surrogate pair whose second follows as `\uXXXX` too.
fn unicode_escape(characters: &mut std::str::Chars<'_>) -> Option<char> {
    let first = utf16_unit(characters)?;
    if let Some(character) = char::from_u32(first.into()) {
        return Some(character);
    }
    if characters.next() != Some('\\') || characters.next() != Some('u') {
        return None;
    }
    let second = utf16_unit(characters)?;
    char::decode_utf16([first, second]).next()?.ok()
}

fn utf16_unit(characters: &mut std::str::Chars<'_>) -> Option<u16> {
    let digits: String = characters.take(4).collect();
    let is_hexadecimal = digits.len() == 4 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_hexadecimal.then(|| u16::from_str_radix(&digits, 16).ok())?
}

fn escape(out: &mut String, text: &str, is_key: bool) {
    let mut is_leading = true;
    for character in text.chars() {
        let is_special = matches!(character, '\\') || (is_key && matches!(character, '=' | ':' | '#' | '!'));
        match character {
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\u{c}' => out.push_str("\\f"),
            ' ' if is_key || is_leading => out.push_str("\\ "),
            '=' | ':' if is_leading => {
                out.push('\\');
                out.push(character);
            }
            _ => {
                if is_special {
                    out.push('\\');
                }
                out.push(character);
            }
        }
        is_leading = is_leading && character == ' ';
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs(text: &str) -> Vec<(String, String, u32)> {
        parse(text.as_bytes()).unwrap().into_iter().map(|found| (found.key, found.value, found.line)).collect()
    }

    #[test]
    fn separators_comments_and_blank_lines_are_those_of_java() {
        let found = pairs("# a comment\n! another\n\na=1\n b : 2 \nc 3\nd\ne==\r\nf:\rg=x=y");
        let expected =
            [("a", "1", 4), ("b", "2 ", 5), ("c", "3", 6), ("d", "", 7), ("e", "=", 8), ("f", "", 9), ("g", "x=y", 10)];
        assert_eq!(found, expected.map(|(key, value, line)| (key.into(), value.into(), line)));
    }

    #[test]
    fn a_line_continues_after_an_odd_number_of_backslashes() {
        let found = pairs("a=1,\\\n   2,\\\n\t3\nb=c\\\\\nd=e\\");
        let expected = [("a", "1,2,3", 1), ("b", "c\\", 4), ("d", "e", 5)];
        assert_eq!(found, expected.map(|(key, value, line)| (key.into(), value.into(), line)));
    }

    #[test]
    fn escapes_name_characters() {
        let found = pairs("a\\ b\\=c=\\u00e4\\t\\q\\ud83d\\ude00");
        assert_eq!(found, [("a b=c".to_owned(), "ä\tq😀".to_owned(), 1)]);
    }

    #[test]
    fn a_broken_escape_is_refused_with_its_line() {
        for broken in ["x=\\u12", "x=\\u+123", "x=\\ud800", "x=\\ud800\\u0041"] {
            let text = format!("a=1\n{broken}");
            assert_eq!(parse(text.as_bytes()), Err(PropertiesError::BadEscape { line: 2 }), "{broken}");
        }
    }

    #[test]
    fn latin_1_and_a_byte_order_mark_are_read() {
        assert_eq!(parse(b"a=\xe4").unwrap()[0].value, "ä");
        assert_eq!(parse("\u{feff}a=1".as_bytes()).unwrap()[0].key, "a");
    }

    #[test]
    fn a_file_over_the_bound_is_refused() {
        let size_bytes = PROPERTIES_BYTES_MAX + 1;
        assert_eq!(parse(&vec![b' '; size_bytes]), Err(PropertiesError::TooLarge { size_bytes }));
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_back(lines in prop::collection::vec(("\\PC{1,8}|[ =:#!\\\\\t\r\n\u{c}]{1,4}", "\\PC{0,8}|[ =:\\\\\t\r\n]{0,4}"), 0..8)) {
            let mut text = String::new();
            for (key, value) in &lines {
                write(&mut text, key, value);
            }
            let found: Vec<_> = parse(text.as_bytes()).unwrap().into_iter().map(|found| (found.key, found.value)).collect();
            prop_assert_eq!(found, lines);
        }

        #[test]
        fn junk_never_panics(junk in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = parse(&junk); // any answer will do
        }

        #[test]
        fn junk_of_special_characters_never_panics(junk in "[a\\\\u0 =:#\r\n]{0,64}") {
            let _ = parse(junk.as_bytes()); // any answer will do
        }
    }
}
