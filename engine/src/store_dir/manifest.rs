//! The manifest: what a store is, in a few lines of text.

use std::fmt::Write;

use crate::config::Geometry;
use crate::position::SHARD_COUNT_MAX;

/// Version of the store's layout that this program reads and writes.
pub const STORE_FORMAT_VERSION: u32 = 3;
const TITLE: &str = "ringmq store";

/// What a store is. As text, one `key = value` per line under a title, closed by a CRC-32 of everything above it:
///
/// ```text
/// ringmq store
/// format = 2
/// shards = 4
/// segment_bytes = 1073741824
/// chunk_bytes = 1048576
/// epoch = 12
/// boot = 65bf7a4c933442939f154fbc035d044b
/// boot_epoch = 11
/// checksum = 1a2b3c4d
/// ```
///
/// The file is replaced as a whole, so a torn manifest is damage, not a crash: it is refused, never guessed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manifest {
    pub shard_count: u16,
    pub geometry: Geometry,
    /// How often the store has been opened.
    pub epoch: u64,
    /// Which start of the machine the store was last opened in: the kernel's boot id, 0 if it has none to offer.
    pub boot: u128,
    /// First epoch of that start.
    pub boot_epoch: u64,
}

/// Why a manifest is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    #[error("not the manifest of a store")]
    NotAManifest,
    #[error(
        "format version {found} is not one this program reads (it reads {STORE_FORMAT_VERSION}); use the version that wrote the store"
    )]
    UnknownFormat { found: String },
    #[error("field {field} is missing or not a number in its range; restore the file from a backup")]
    BadField { field: &'static str },
    #[error("line {line:?} is unknown; was the store written by a later version?")]
    UnknownLine { line: String },
    #[error("its checksum does not match; restore the file from a backup")]
    Checksum,
}

impl Manifest {
    /// Counts an opening in the start of the machine named `boot` (0: not known).
    pub fn count_opening(&mut self, boot: u128) {
        self.boot_epoch = self.powered_since(boot);
        self.boot = boot;
        self.epoch += 1;
    }

    /// First epoch in the start of the machine named `boot` (0: not known), the next one if there is none yet.
    pub fn powered_since(&self, boot: u128) -> u64 {
        if boot != 0 && boot == self.boot { self.boot_epoch } else { self.epoch + 1 }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut text = format!(
            "{TITLE}\nformat = {STORE_FORMAT_VERSION}\nshards = {}\nsegment_bytes = {}\nchunk_bytes = {}\nepoch = {}\nboot = {:032x}\nboot_epoch = {}\n",
            self.shard_count,
            self.geometry.segment_bytes,
            self.geometry.chunk_bytes,
            self.epoch,
            self.boot,
            self.boot_epoch
        );
        let checksum = crc32fast::hash(text.as_bytes());
        writeln!(text, "checksum = {checksum:08x}").expect("writing to a string does not fail");
        text.into_bytes()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        let text = std::str::from_utf8(bytes).map_err(|_| ManifestError::NotAManifest)?;
        let mut lines = text.lines();
        if lines.next() != Some(TITLE) {
            return Err(ManifestError::NotAManifest);
        }
        // The version comes first: of a later one we cannot even say where its checksum is.
        let format = lines.next().and_then(|line| line.strip_prefix("format = ")).ok_or(ManifestError::NotAManifest)?;
        if format.parse() != Ok(STORE_FORMAT_VERSION) {
            return Err(ManifestError::UnknownFormat { found: format.to_owned() });
        }
        let (body, checksum) = text.rsplit_once("checksum = ").ok_or(ManifestError::Checksum)?;
        if u32::from_str_radix(checksum.trim_end(), 16) != Ok(crc32fast::hash(body.as_bytes())) {
            return Err(ManifestError::Checksum);
        }
        let (mut shards, mut segment_bytes, mut chunk_bytes, mut epoch) = (None, None, None, None);
        let (mut boot, mut boot_epoch) = (None, None);
        for line in lines {
            let unknown = || ManifestError::UnknownLine { line: line.to_owned() };
            let (key, value) = line.split_once(" = ").ok_or_else(unknown)?;
            let field: &mut Option<u64> = match key {
                "shards" => &mut shards,
                "segment_bytes" => &mut segment_bytes,
                "chunk_bytes" => &mut chunk_bytes,
                "epoch" => &mut epoch,
                "boot_epoch" => &mut boot_epoch,
                "boot" => {
                    boot = u128::from_str_radix(value, 16).ok();
                    continue;
                }
                "checksum" => continue,
                _ => return Err(unknown()),
            };
            *field = value.parse().ok();
        }
        let need = |value: Option<u64>, field| value.ok_or(ManifestError::BadField { field });
        let shard_count = u16::try_from(need(shards, "shards")?).unwrap_or(0);
        if shard_count == 0 || SHARD_COUNT_MAX < shard_count {
            return Err(ManifestError::BadField { field: "shards" });
        }
        let geometry = Geometry {
            segment_bytes: need(segment_bytes, "segment_bytes")?,
            chunk_bytes: need(chunk_bytes, "chunk_bytes")?,
        };
        if !geometry.is_valid() {
            return Err(ManifestError::BadField { field: "segment_bytes" });
        }
        Ok(Self {
            shard_count,
            geometry,
            epoch: need(epoch, "epoch")?,
            boot: boot.ok_or(ManifestError::BadField { field: "boot" })?,
            boot_epoch: need(boot_epoch, "boot_epoch")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SAMPLE: fn() -> Manifest =
        || Manifest { shard_count: 4, geometry: Geometry::default(), epoch: 12, boot: 7, boot_epoch: 11 };

    #[test]
    fn a_manifest_is_read_back() {
        let bytes = SAMPLE().encode();
        assert_eq!(Manifest::decode(&bytes), Ok(SAMPLE()));
        assert!(bytes.starts_with(b"ringmq store\nformat = 3\nshards = 4\nsegment_bytes = 1073741824\n"));
    }

    #[test]
    fn an_unknown_version_is_refused_whatever_follows() {
        let refused = Manifest::decode(b"ringmq store\nformat = 4\nanything");
        assert_eq!(refused, Err(ManifestError::UnknownFormat { found: "4".to_owned() }));
        assert_eq!(Manifest::decode(b""), Err(ManifestError::NotAManifest));
    }

    #[test]
    fn the_first_epoch_of_a_start_of_the_machine_is_known() {
        let mut manifest = SAMPLE();
        manifest.count_opening(7);
        assert_eq!((manifest.epoch, manifest.powered_since(7)), (13, 11));
        manifest.count_opening(8);
        assert_eq!((manifest.epoch, manifest.powered_since(8), manifest.powered_since(7)), (14, 14, 15));
        manifest.count_opening(0);
        manifest.count_opening(0);
        assert_eq!((manifest.epoch, manifest.boot_epoch), (16, 16), "without an id every opening may be another start");
    }

    #[test]
    fn a_missing_field_is_named() {
        let text = String::from_utf8(SAMPLE().encode()).unwrap().replace("shards = 4\n", "");
        let body = &text[..text.find("checksum").unwrap()];
        let text = format!("{body}checksum = {:08x}\n", crc32fast::hash(body.as_bytes()));
        assert_eq!(Manifest::decode(text.as_bytes()), Err(ManifestError::BadField { field: "shards" }));
    }

    proptest! {
        #[test]
        fn any_changed_byte_is_noticed(at in any::<prop::sample::Index>(), change in 1..=255_u8) {
            let mut bytes = SAMPLE().encode();
            let at = at.index(bytes.len() - 1); // The last byte is the line's end, which nobody needs.
            bytes[at] ^= change;
            prop_assert_ne!(Manifest::decode(&bytes), Ok(Manifest { epoch: 13, ..SAMPLE() }));
            prop_assert!(Manifest::decode(&bytes).is_err() || Manifest::decode(&bytes) == Ok(SAMPLE()));
        }
    }
}
