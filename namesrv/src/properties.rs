//! Text in the syntax of Java's `.properties` files, both ways.
//!
//! Used for the configuration requests (318, 319) and for the file they keep. The input is untrusted:
//! nothing here panics, and the result is never larger than the text.

/// One `name=value` pair and the line it started on (counted from 1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Property {
    pub line: usize,
    pub name: String,
    pub value: String,
}

/// The text is not in Java's properties syntax. Java knows one error only: a bad `\u` escape.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: \\u must be followed by four hexadecimal digits")]
pub struct MalformedEscape {
    pub line: usize,
}

/// Reads every pair in order; a name that occurs twice is returned twice.
pub fn parse(text: &str) -> Result<Vec<Property>, MalformedEscape> {
    let mut properties = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let first = line.trim_start();
        if first.is_empty() || first.starts_with(['#', '!']) {
            continue;
        }
        let mut logical = first.to_owned();
        while continues(&logical) {
            logical.pop();
            match lines.next() {
                Some((_, next)) => logical.push_str(next.trim_start()),
                None => break,
            }
        }
        properties.push(split(&logical, index + 1)?);
    }
    Ok(properties)
}

/// A line whose backslashes at the end are odd in number goes on in the next one.
fn continues(line: &str) -> bool {
    line.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

/// The name ends at the first `=`, `:` or blank that has no backslash before it.
fn split(logical: &str, line: usize) -> Result<Property, MalformedEscape> {
    let mut escaped = false;
    let name_end = logical
        .char_indices()
        .find(|&(_, character)| {
            let ends = !escaped && matches!(character, '=' | ':' | ' ' | '\t' | '\x0c');
            escaped = !escaped && character == '\\';
            ends
        })
        .map_or(logical.len(), |(at, _)| at);
    let (name, rest) = logical.split_at(name_end);
    let rest = rest.trim_start();
    let value = rest.strip_prefix(['=', ':']).map_or(rest, str::trim_start);
    Ok(Property { line, name: unescape(name, line)?, value: unescape(value, line)? })
}

fn unescape(text: &str, line: usize) -> Result<String, MalformedEscape> {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            plain.push(character);
            continue;
        }
        match characters.next() {
            Some('n') => plain.push('\n'),
            Some('r') => plain.push('\r'),
            Some('t') => plain.push('\t'),
            Some('f') => plain.push('\x0c'),
            Some('u') => {
                let unit = hex_unit(&mut characters).ok_or(MalformedEscape { line })?;
                // A lone surrogate has no place in UTF-8; the replacement character says one was here.
                plain.push(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            Some(other) => plain.push(other),
            None => {}
        }
    }
    Ok(plain)
}

fn hex_unit(characters: &mut std::str::Chars<'_>) -> Option<u32> {
    let mut unit = 0;
    for _ in 0..4 {
        unit = unit * 16 + characters.next()?.to_digit(16)?;
    }
    Some(unit)
}

/// Appends `name=value` and a line feed, escaped so that [`parse`] and Java read the same value back.
pub fn write(out: &mut String, name: &str, value: &str) {
    out.push_str(name);
    out.push('=');
    for (index, character) in value.chars().enumerate() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0c' => out.push_str("\\f"),
            ' ' if index == 0 => out.push_str("\\ "),
            other => out.push(other),
        }
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        let parsed = parse(text).expect("valid text");
        parsed.into_iter().map(|p| (p.name, p.value)).collect()
    }

    #[test]
    fn java_forms_are_read_as_java_reads_them() {
        let table = [
            ("a=b", "a", "b"),
            ("  a = b ", "a", "b "),
            ("a:b", "a", "b"),
            ("a b c", "a", "b c"),
            ("a", "a", ""),
            ("a==b", "a", "=b"),
            ("a\\=b=c", "a=b", "c"),
            ("path=C\\:\\\\x", "path", "C:\\x"),
            ("a=one\\\n   two", "a", "onetwo"),
            ("a=\\u00e9", "a", "é"),
            ("a=1\\", "a", "1"),
        ];
        for (text, name, value) in table {
            assert_eq!(pairs(text), [(name.to_owned(), value.to_owned())], "{text}");
        }
        assert!(pairs("# a=b\n! c=d\n\n  \n").is_empty());
    }

    #[test]
    fn a_bad_escape_names_its_line() {
        assert_eq!(parse("a=b\nc=\\u12"), Err(MalformedEscape { line: 2 }));
    }

    proptest! {
        #[test]
        fn junk_never_panics(text in "\\PC*|[\\\\u=: \n#!a]{0,40}") {
            drop(parse(&text)); // either outcome is right, as long as there is one
        }

        #[test]
        fn what_is_written_is_read_back(value in "[ -~\\n\\r\\té]{0,40}") {
            let mut text = String::new();
            write(&mut text, "key", &value);
            prop_assert_eq!(pairs(&text), [("key".to_owned(), value)]);
        }
    }
}
