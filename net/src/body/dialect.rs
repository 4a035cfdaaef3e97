//! fastjson's dialect on top of `serde_json`: integer map keys without quotes.
#![forbid(unsafe_code)]

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};
use std::io::{self, Write};

pub(super) fn to_vec<T: Serialize>(body: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    let mut serializer = Serializer::with_formatter(&mut out, BareIntegerKeys::default());
    body.serialize(&mut serializer).expect("bodies have string or integer keys and no failing serialisers");
    out
}

/// `serde_json` writes an integer key as begin_string, number, end_string. Holding the opening
/// quote back until text arrives leaves such keys bare and everything else as it was.
#[derive(Default)]
struct BareIntegerKeys {
    is_quote_held: bool,
    is_bare: bool,
}

impl BareIntegerKeys {
    fn flush<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        if std::mem::take(&mut self.is_quote_held) { writer.write_all(b"\"") } else { Ok(()) }
    }

    fn number<W: ?Sized + Write>(&mut self, writer: &mut W, value: i64) -> io::Result<()> {
        self.is_bare |= std::mem::take(&mut self.is_quote_held);
        writer.write_all(itoa::Buffer::new().format(value).as_bytes())
    }
}

impl Formatter for BareIntegerKeys {
    fn begin_string<W: ?Sized + Write>(&mut self, _writer: &mut W) -> io::Result<()> {
        self.is_quote_held = true;
        Ok(())
    }

    fn end_string<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.flush(writer)?;
        if std::mem::take(&mut self.is_bare) { Ok(()) } else { writer.write_all(b"\"") }
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        self.flush(writer)?;
        writer.write_all(fragment.as_bytes())
    }

    fn write_char_escape<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        escape: serde_json::ser::CharEscape,
    ) -> io::Result<()> {
        self.flush(writer)?;
        serde_json::ser::CompactFormatter.write_char_escape(writer, escape)
    }

    fn write_i32<W: ?Sized + Write>(&mut self, writer: &mut W, value: i32) -> io::Result<()> {
        self.number(writer, value.into())
    }

    fn write_i64<W: ?Sized + Write>(&mut self, writer: &mut W, value: i64) -> io::Result<()> {
        self.number(writer, value)
    }
}
