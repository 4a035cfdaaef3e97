//! Compact JSON text in the dialect of RocketMQ's peers.
//!
//! Members in alphabetical order and no blanks: the Go client cuts `brokerAddrs` apart as text, and any
//! blank inside would break its addresses.

/// How integer keys of maps are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteForm {
    /// `{0:"a"}`: what peers before 4.9.4 expect; not standard JSON.
    Legacy,
    /// `{"0":"a"}`.
    Standard,
}

/// Appends a quoted, escaped string.
pub fn string(out: &mut Vec<u8>, text: &str) {
    let written = serde_json::to_writer(&mut *out, text);
    debug_assert!(written.is_ok(), "a string into memory cannot fail");
}

/// Appends an integer.
pub fn integer(out: &mut Vec<u8>, number: i64) {
    let written = serde_json::to_writer(&mut *out, &number);
    debug_assert!(written.is_ok(), "an integer into memory cannot fail");
}

pub fn boolean(out: &mut Vec<u8>, value: bool) {
    out.extend_from_slice(if value { b"true" } else { b"false" });
}

/// Appends an integer as a map key.
fn integer_key(out: &mut Vec<u8>, key: i64, form: RouteForm) {
    if form == RouteForm::Standard {
        out.push(b'"');
    }
    integer(out, key);
    if form == RouteForm::Standard {
        out.push(b'"');
    }
}

/// Appends the items separated by commas, each through `write`, between `open` and `close`.
pub fn joined<T>(
    out: &mut Vec<u8>,
    brackets: [u8; 2],
    items: impl IntoIterator<Item = T>,
    mut write: impl FnMut(&mut Vec<u8>, T),
) {
    let [open, close] = brackets;
    out.push(open);
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(close);
}

/// Appends `["a","b"]`.
pub fn strings<'a>(out: &mut Vec<u8>, items: impl IntoIterator<Item = &'a str>) {
    joined(out, *b"[]", items, string);
}

/// Appends `{"a":"b"}`.
pub fn string_map<'a>(out: &mut Vec<u8>, entries: impl IntoIterator<Item = (&'a str, &'a str)>) {
    joined(out, *b"{}", entries, |out, (key, value)| {
        string(out, key);
        out.push(b':');
        string(out, value);
    });
}

/// Appends `{0:"a",1:"b"}`.
pub fn id_map<'a>(out: &mut Vec<u8>, entries: impl IntoIterator<Item = (i64, &'a str)>, form: RouteForm) {
    joined(out, *b"{}", entries, |out, (key, value)| {
        integer_key(out, key, form);
        out.push(b':');
        string(out, value);
    });
}
