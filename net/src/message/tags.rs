//! The tag hash that consume queues carry.
#![forbid(unsafe_code)]

use super::properties;

/// Java's string hash over UTF-16 units, sign-extended; 0 for an empty tag.
pub fn tags_code(tags: &str) -> i64 {
    let hash = tags.encode_utf16().fold(0i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(unit.into())
    });
    hash.into()
}

/// Tag hash of a property string; 0 when it has no TAGS.
pub fn tags_code_of(properties: &[u8]) -> i64 {
    match properties::get(properties, properties::keys::TAGS) {
        Some(tags) => tags_code(&String::from_utf8_lossy(tags)),
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_equal_those_of_java() {
        assert_eq!(tags_code(""), 0);
        assert_eq!(tags_code("A"), 65);
        assert_eq!(tags_code("TagA"), 2_598_919);
        assert_eq!(tags_code("中"), 20_013);
        assert_eq!(tags_code("polygenelubricants"), i64::from(i32::MIN));
        assert_eq!(tags_code("😀"), 1_772_899);
        assert_eq!(tags_code_of(b"KEYS\x01k\x02TAGS\x01TagA"), 2_598_919);
        assert_eq!(tags_code_of(b""), 0);
    }
}
