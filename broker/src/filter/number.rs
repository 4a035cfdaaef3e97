//! Numbers as Java reads them from text. Properties are text, so every comparison with a number begins here.

use std::cmp::Ordering;

/// Longest text read as a number, bytes: a double has no use for more than 767 digits. Java reads longer ones, and an
/// expression may compare a property of 32 KiB with thousands of numbers.
const NUMBER_BYTES_MAX: usize = 1024;

fn number_text(bytes: &[u8]) -> Option<&str> {
    (bytes.len() <= NUMBER_BYTES_MAX).then(|| std::str::from_utf8(bytes).ok())?
}

/// `Integer.valueOf`: an optional sign and digits, nothing around them.
pub fn int(text: &[u8]) -> Option<i32> {
    number_text(text)?.parse().ok()
}

/// `Long.valueOf`.
pub fn long(text: &[u8]) -> Option<i64> {
    number_text(text)?.parse().ok()
}

/// `Double.valueOf`: blanks and control characters around it and one of `fFdD` behind it are passed over; `NaN` and
/// `Infinity` are numbers.
pub fn double(text: &[u8]) -> Option<f64> {
    let text = number_text(text)?.trim_matches(|character| character <= ' ');
    let (is_negative, magnitude) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let value = match magnitude {
        "NaN" => f64::NAN,
        "Infinity" => f64::INFINITY,
        digits => {
            let digits = digits.strip_suffix(['f', 'F', 'd', 'D']).unwrap_or(digits);
            match digits.get(..2) {
                Some("0x" | "0X") => hexadecimal(&digits[2..])?,
                _ => decimal(digits)?,
            }
        }
    };
    Some(if is_negative { -value } else { value })
}

/// Rust's reader also takes `inf`, `nan` and a sign.
fn decimal(digits: &str) -> Option<f64> {
    let is_number = digits.starts_with(|first: char| first.is_ascii_digit() || first == '.')
        && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'));
    is_number.then(|| digits.parse().ok())?
}

/// What follows `0x`: `1.8p3` is 1.5 times 8. The exponent must be there.
fn hexadecimal(text: &str) -> Option<f64> {
    let (digits, exponent) = text.split_once(['p', 'P'])?;
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut bits: u64 = 0;
    let mut shift: i64 = 0;
    for (index, digit) in whole.chars().chain(fraction.chars()).enumerate() {
        let digit = u64::from(digit.to_digit(16)?);
        let is_fraction = index >= whole.len();
        if bits >> 58 == 0 {
            bits = bits << 4 | digit;
            shift -= if is_fraction { 4 } else { 0 };
        } else {
            // Too small to count, but not for rounding: the lowest bit stands for all that follow.
            bits |= u64::from(digit != 0);
            shift += if is_fraction { 0 } else { 4 };
        }
    }
    let exponent = exponent_of(exponent)?;
    Some(scaled(bits, shift.saturating_add(exponent)))
}

/// An exponent may have any number of digits; beyond a few thousand it changes nothing any more.
fn exponent_of(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let bound = i64::MAX / 4;
    let magnitude = digits.parse().unwrap_or(bound).min(bound);
    Some(if text.starts_with('-') { -magnitude } else { magnitude })
}

/// `bits` times two to the `exponent`, rounded once, to even.
fn scaled(bits: u64, exponent: i64) -> f64 {
    if bits == 0 {
        return 0.0;
    }
    // The value is 1.f times two to the `top`.
    let top = exponent.saturating_add(63 - i64::from(bits.leading_zeros()));
    if top > 1023 {
        return f64::INFINITY;
    }
    // The lowest bit a double of this size has.
    let lowest = (top - 52).max(-1074);
    let dropped = lowest - exponent;
    let kept = match dropped {
        ..=0 => bits << -dropped,
        1..64 => {
            let (kept, rest, half) = (bits >> dropped, bits & ((1 << dropped) - 1), 1 << (dropped - 1));
            kept + u64::from(rest > half || (rest == half && kept & 1 == 1))
        }
        64 => u64::from(bits > 1 << 63),
        _ => 0,
    };
    // Both factors and the product are exact: `kept` has 53 bits, or one more with zeros behind it.
    let power = |exponent: i64| 2_f64.powi(exponent as i32);
    if lowest < -1000 { kept as f64 * power(-1000) * power(lowest + 1000) } else { kept as f64 * power(lowest) }
}

/// `Double.compare`: NaN is the largest and equal to itself, 0.0 is larger than -0.0.
pub fn compare_doubles(left: f64, right: f64) -> Ordering {
    let canonical = |value: f64| if value.is_nan() { f64::NAN } else { value };
    canonical(left).total_cmp(&canonical(right))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn doubles_are_read_as_java_reads_them() {
        for (text, expected) in [
            ("1", Some(1.0)),
            (" \t1.5\n", Some(1.5)),
            ("1.", Some(1.0)),
            (".5", Some(0.5)),
            ("-1e3", Some(-1000.0)),
            ("1e+3", Some(1000.0)),
            ("1f", Some(1.0)),
            ("1e5D", Some(1e5)),
            ("Infinity", Some(f64::INFINITY)),
            ("-Infinity", Some(f64::NEG_INFINITY)),
            ("1e999", Some(f64::INFINITY)),
            ("0x1p3", Some(8.0)),
            ("0x.8p1", Some(1.0)),
            ("-0X1.8P+1d", Some(-3.0)),
            ("0x1.fffffffffffff8p0", Some(2.0)),
            ("0x1p-1074", Some(f64::from_bits(1))),
            ("0x1p-1075", Some(0.0)),
            ("0x1.8p-1075", Some(f64::from_bits(1))),
            ("0x0p99999999999999999999", Some(0.0)),
            ("0x1p99999999999999999999", Some(f64::INFINITY)),
            ("", None),
            (" ", None),
            ("+", None),
            (".", None),
            ("inf", None),
            ("infinity", None),
            ("nan", None),
            ("+-1", None),
            ("1L", None),
            ("1ff", None),
            ("Infinityf", None),
            ("0x1", None),
            ("0xp1", None),
            ("0x1.0.0p1", None),
            ("1_000", None),
            ("e5", None),
        ] {
            assert_eq!(double(text.as_bytes()), expected, "{text:?}");
        }
        assert!(double(b"NaN").is_some_and(f64::is_nan));
    }

    #[test]
    fn whole_numbers_have_no_blanks_and_no_suffix() {
        for (text, expected) in
            [("7", Some(7)), ("+7", Some(7)), ("-7", Some(-7)), (" 7", None), ("7L", None), ("-", None)]
        {
            assert_eq!(long(text.as_bytes()), expected, "{text:?}");
            assert_eq!(int(text.as_bytes()), expected.map(|value| value as i32), "{text:?}");
        }
        assert_eq!((int(b"2147483648"), long(b"2147483648")), (None, Some(2_147_483_648)));
    }

    proptest! {
        #[test]
        fn a_double_written_in_hexadecimal_is_itself(bits: u64) {
            let value = f64::from_bits(bits & !(1 << 63));
            prop_assume!(value.is_finite());
            let (mantissa, exponent) = (bits & ((1 << 52) - 1), (bits >> 52 & 0x7ff) as i64);
            let text = match exponent {
                0 => format!("0x0.{mantissa:013x}p-1022"),
                _ => format!("0x1.{mantissa:013x}p{}", exponent - 1023),
            };
            prop_assert_eq!(double(text.as_bytes()), Some(value), "{}", text);
        }

        #[test]
        fn junk_never_panics(text in "[0-9a-fxXpPeE.+\\-NIi ]{0,24}") {
            let _ = double(text.as_bytes());
        }
    }
}
