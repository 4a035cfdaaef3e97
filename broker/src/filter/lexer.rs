//! Tokens of the language, read one at a time: what stands behind the last token the parser asks for is not looked at,
//! as in RocketMQ.

use super::{Fault, SqlError};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Token<'a> {
    And,
    Between,
    Contains,
    EndsWith,
    False,
    In,
    Is,
    Not,
    Null,
    Or,
    StartsWith,
    True,
    /// Digits, without the `L` that may follow them.
    Integer(&'a str),
    Float(&'a str),
    /// What stands between the quotes, quotes within it still doubled.
    Text(&'a str),
    Name(&'a str),
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Open,
    Close,
    Comma,
    Plus,
    Minus,
    End,
}

/// The reserved words. They are recognised in any case; names are not.
const WORDS: [(&str, Token<'static>); 12] = [
    ("AND", Token::And),
    ("BETWEEN", Token::Between),
    ("CONTAINS", Token::Contains),
    ("ENDSWITH", Token::EndsWith),
    ("FALSE", Token::False),
    ("IN", Token::In),
    ("IS", Token::Is),
    ("NOT", Token::Not),
    ("NULL", Token::Null),
    ("OR", Token::Or),
    ("STARTSWITH", Token::StartsWith),
    ("TRUE", Token::True),
];

pub struct Lexer<'a> {
    text: &'a str,
    /// Byte where the next token is looked for.
    next: usize,
}

impl<'a> Lexer<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, next: 0 }
    }

    /// The next token and the byte where it begins.
    pub fn token(&mut self) -> Result<(usize, Token<'a>), SqlError> {
        self.skip_blanks_and_comments()?;
        let start = self.next;
        let rest = &self.text[start..];
        let (length, token) = match rest.as_bytes() {
            [] => (0, Token::End),
            [b'<', b'>', ..] => (2, Token::NotEqual),
            [b'<', b'=', ..] => (2, Token::LessOrEqual),
            [b'<', ..] => (1, Token::Less),
            [b'>', b'=', ..] => (2, Token::GreaterOrEqual),
            [b'>', ..] => (1, Token::Greater),
            [b'=', ..] => (1, Token::Equal),
            [b'(', ..] => (1, Token::Open),
            [b')', ..] => (1, Token::Close),
            [b',', ..] => (1, Token::Comma),
            [b'+', ..] => (1, Token::Plus),
            [b'-', ..] => (1, Token::Minus),
            [b'\'', ..] => quoted(rest).ok_or_else(|| self.error(start, Fault::OpenText))?,
            [b'0'..=b'9', ..] | [b'.', b'0'..=b'9', ..] => number(rest),
            [first, ..] if is_name_start(*first) => word(rest),
            _ => {
                let character = rest.chars().next().unwrap_or_default();
                return Err(self.error(start, Fault::Character(character)));
            }
        };
        self.next += length;
        Ok((start, token))
    }

    /// What has been read from a byte on: a token where it begins.
    pub fn read_since(&self, byte: usize) -> &'a str {
        &self.text[byte..self.next]
    }

    /// An error at a byte of the text.
    pub fn error(&self, byte: usize, fault: Fault) -> SqlError {
        let at = self.text.get(..byte).unwrap_or(self.text).chars().count() + 1;
        SqlError { at, fault }
    }

    fn skip_blanks_and_comments(&mut self) -> Result<(), SqlError> {
        loop {
            let rest = &self.text[self.next..];
            let length = match rest.as_bytes() {
                [b' ' | b'\t' | b'\n' | b'\r' | 0x0c, ..] => 1,
                // Without an end of line these are two minus signs.
                [b'-', b'-', ..] => match rest.find(['\n', '\r']) {
                    Some(end) => end + 1,
                    None => return Ok(()),
                },
                [b'/', b'*', ..] => match rest[2..].find("*/") {
                    Some(end) => end + 4,
                    None => return Err(self.error(self.next, Fault::OpenComment)),
                },
                _ => return Ok(()),
            };
            self.next += length;
        }
    }
}

/// A text ends at a quote that no other follows. Without one it ends at the last quote that could have ended it.
fn quoted(rest: &str) -> Option<(usize, Token<'_>)> {
    let text = |end: usize| (end + 1, Token::Text(&rest[1..end]));
    let (mut next, mut last) = (1, None);
    while let Some(length) = rest[next..].find('\'') {
        let end = next + length;
        if rest.as_bytes().get(end + 1) != Some(&b'\'') {
            return Some(text(end));
        }
        (next, last) = (end + 2, Some(end));
    }
    last.map(text)
}

fn digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

/// Length of `E`, sign and digits at the start of the text, 0 if that is not there.
fn exponent(text: &str) -> usize {
    let head = match text.as_bytes() {
        [b'e' | b'E', b'+' | b'-', ..] => 2,
        [b'e' | b'E', ..] => 1,
        _ => return 0,
    };
    match digits(&text[head..]) {
        0 => 0,
        count => head + count,
    }
}

/// The longest number here. A whole number that begins with 0 ends with it: `007` is three numbers, `0L` is a number
/// and a name.
fn number(rest: &str) -> (usize, Token<'_>) {
    let whole = digits(rest);
    let mut end = whole;
    if rest.as_bytes().get(end) == Some(&b'.') {
        end += 1;
        end += digits(&rest[end..]);
    }
    end += exponent(&rest[end..]);
    if whole < end {
        return (end, Token::Float(&rest[..end]));
    }
    if rest.starts_with('0') {
        return (1, Token::Integer(&rest[..1]));
    }
    let suffix = usize::from(rest[whole..].starts_with(['l', 'L']));
    (whole + suffix, Token::Integer(&rest[..whole]))
}

fn is_name_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || matches!(byte, b'_' | b'$')
}

fn word(rest: &str) -> (usize, Token<'_>) {
    let length = rest.bytes().take_while(|byte| is_name_start(*byte) || byte.is_ascii_digit()).count();
    let word = &rest[..length];
    let reserved = WORDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
    (length, reserved.map_or(Token::Name(word), |(_, token)| *token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Result<Vec<Token<'_>>, SqlError> {
        let mut lexer = Lexer::new(text);
        let mut tokens = Vec::new();
        loop {
            match lexer.token()?.1 {
                Token::End => return Ok(tokens),
                token => tokens.push(token),
            }
        }
    }

    #[test]
    fn the_longest_token_is_taken() {
        use Token::*;
        for (text, expected) in [
            ("a1$_ b", vec![Name("a1$_"), Name("b")]),
            ("NoT nothing", vec![Not, Name("nothing")]),
            ("<><=>=<>", vec![NotEqual, LessOrEqual, GreaterOrEqual, NotEqual]),
            ("'it''s' ''", vec![Text("it''s"), Text("")]),
            (
                "12 12L 1.5 .5 1. 1e5 1.e-5",
                vec![
                    Integer("12"),
                    Integer("12"),
                    Float("1.5"),
                    Float(".5"),
                    Float("1."),
                    Float("1e5"),
                    Float("1.e-5"),
                ],
            ),
            (
                "007 0L 00.5 1e 1.5L",
                vec![
                    Integer("0"),
                    Integer("0"),
                    Integer("7"),
                    Integer("0"),
                    Name("L"),
                    Float("00.5"),
                    Integer("1"),
                    Name("e"),
                    Float("1.5"),
                    Name("L"),
                ],
            ),
            ("a -- b\nc", vec![Name("a"), Name("c")]),
            ("a --b", vec![Name("a"), Minus, Minus, Name("b")]),
            ("a /* * / **/ b /**/", vec![Name("a"), Name("b")]),
        ] {
            assert_eq!(tokens(text).as_deref(), Ok(&expected[..]), "{text:?}");
        }
    }

    #[test]
    fn an_error_names_its_character() {
        for (text, at, fault) in [
            ("a = 'ä' ^", 9, Fault::Character('^')),
            ("ä", 1, Fault::Character('ä')),
            ("a != 1", 3, Fault::Character('!')),
            ("a = 'b", 5, Fault::OpenText),
            ("a = 'b''", 8, Fault::OpenText),
            ("a /* b *", 3, Fault::OpenComment),
            ("a.b", 2, Fault::Character('.')),
        ] {
            assert_eq!(tokens(text), Err(SqlError { at, fault }), "{text:?}");
        }
    }
}
