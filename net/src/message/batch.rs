//! The body of a batch: items one after the other, no count.
//!
//! | bytes | field | note |
//! |---|---|---|
//! | 4 | total size | of the item, this field included: 22 + body + properties |
//! | 4 | magic | 0, ignored |
//! | 4 | body CRC | 0, ignored |
//! | 4 | flag | |
//! | 4 + n | body | length first |
//! | 2 + p | properties | length first |
#![forbid(unsafe_code)]

const FIXED_BYTES: usize = 4 + 4 + 4 + 4 + 4 + 2;

/// One message of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchItem<'a> {
    pub flag: i32,
    pub body: &'a [u8],
    /// Stored byte for byte.
    pub properties: &'a [u8],
}

/// The batch body is broken at byte `at`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("batch item at byte {at}: {what}")]
pub struct BatchError {
    pub at: usize,
    pub what: &'static str,
}

/// The items in order; ends after the first error.
pub fn items(body: &[u8]) -> BatchItems<'_> {
    BatchItems { body, at: 0 }
}

/// See [`items`].
#[derive(Clone, Debug)]
pub struct BatchItems<'a> {
    body: &'a [u8],
    at: usize,
}

impl<'a> Iterator for BatchItems<'a> {
    type Item = Result<BatchItem<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.body.get(self.at..).filter(|rest| !rest.is_empty())?;
        let at = self.at;
        let read = read_item(rest)
            .ok_or("it is cut short")
            .and_then(|(size, used, item)| {
                if usize::try_from(size) == Ok(used) {
                    Ok((used, item))
                } else {
                    Err("its sizes disagree")
                }
            });
        Some(match read {
            Ok((used, item)) => {
                self.at += used;
                Ok(item)
            }
            Err(what) => {
                self.at = self.body.len();
                Err(BatchError { at, what })
            }
        })
    }
}

/// The size the item claims, the bytes it takes, and the item.
fn read_item(bytes: &[u8]) -> Option<(i32, usize, BatchItem<'_>)> {
    let (size, rest) = bytes.split_first_chunk::<4>()?;
    let (_magic_and_crc, rest) = rest.split_first_chunk::<8>()?;
    let (flag, rest) = rest.split_first_chunk::<4>()?;
    let (body_len, rest) = rest.split_first_chunk::<4>()?;
    let (body, rest) =
        rest.split_at_checked(usize::try_from(i32::from_be_bytes(*body_len)).ok()?)?;
    let (properties_len, rest) = rest.split_first_chunk::<2>()?;
    let properties_len = usize::try_from(i16::from_be_bytes(*properties_len)).ok()?;
    let properties = rest.get(..properties_len)?;
    let used = FIXED_BYTES + body.len() + properties.len();
    Some((
        i32::from_be_bytes(*size),
        used,
        BatchItem {
            flag: i32::from_be_bytes(*flag),
            body,
            properties,
        },
    ))
}

/// Client side: appends one item. `properties` are at most 32 767 bytes.
pub fn push_item(out: &mut Vec<u8>, item: &BatchItem<'_>) {
    let properties_len = i16::try_from(item.properties.len()).expect("properties fit 16 bits");
    let size = FIXED_BYTES + item.body.len() + item.properties.len();
    out.extend_from_slice(&(size as u32).to_be_bytes());
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&item.flag.to_be_bytes());
    out.extend_from_slice(&(item.body.len() as u32).to_be_bytes());
    out.extend_from_slice(item.body);
    out.extend_from_slice(&properties_len.to_be_bytes());
    out.extend_from_slice(item.properties);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOLDEN: &[u8] = b"\x00\x00\x00\x26\0\0\0\0\0\0\0\0\0\0\0\0\x00\x00\x00\x02hi\x00\x0ek\x01v\x02WAIT\x01true\x02";

    #[test]
    fn golden_item_decodes_and_encodes() {
        let item = BatchItem {
            flag: 0,
            body: b"hi",
            properties: b"k\x01v\x02WAIT\x01true\x02",
        };
        assert_eq!(items(GOLDEN).collect::<Vec<_>>(), [Ok(item)]);
        let mut out = Vec::new();
        push_item(&mut out, &item);
        assert_eq!(out, GOLDEN);
    }

    #[test]
    fn a_broken_item_ends_the_walk() {
        let mut two = GOLDEN.to_vec();
        two.extend_from_slice(&GOLDEN[..20]);
        let seen: Vec<_> = items(&two).collect();
        assert_eq!(
            (seen.len(), seen[0].is_ok(), seen[1].clone()),
            (
                2,
                true,
                Err(BatchError {
                    at: 38,
                    what: "it is cut short"
                })
            )
        );
        let mut lying = GOLDEN.to_vec();
        lying[3] += 1;
        assert!(items(&lying).next().unwrap().is_err());
    }

    proptest! {
        #[test]
        fn decode_undoes_encode(written in proptest::collection::vec((any::<i32>(), any::<Vec<u8>>(), any::<Vec<u8>>()), 0..4)) {
            let written: Vec<_> = written.iter().map(|(flag, body, properties)| BatchItem { flag: *flag, body, properties }).collect();
            let mut out = Vec::new();
            written.iter().for_each(|item| push_item(&mut out, item));
            let read: Result<Vec<_>, _> = items(&out).collect();
            prop_assert_eq!(read, Ok(written));
        }

        #[test]
        fn junk_never_panics(junk in proptest::collection::vec(0u8..40, 0..80)) {
            prop_assert!(items(&junk).count() <= junk.len());
        }
    }
}
