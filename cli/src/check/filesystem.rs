//! The store's filesystem: its kind, and whether it takes direct I/O.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

use super::Finding;

const KIND: &str = "filesystem";
const DIRECT: &str = "direct I/O";
/// The log is written in whole blocks of this size, at addresses aligned to it.
const BLOCK_BYTES: usize = 4096;

pub fn findings(folder: &Path) -> Vec<Finding> {
    vec![kind(folder), direct(folder)]
}

fn kind(folder: &Path) -> Finding {
    match rustix::fs::statfs(folder) {
        // The field's type differs between architectures; the numbers have 32 bits.
        Ok(facts) => judge_kind(facts.f_type as u32, folder),
        Err(error) => Finding::fail(KIND, format!("{}: {error}", folder.display()), "give --store a usable folder"),
    }
}

/// `magic` as in statfs(2).
fn judge_kind(magic: u32, folder: &Path) -> Finding {
    let on = |name: &str| format!("{name} at {}", folder.display());
    match magic {
        0xEF53 => Finding::ok(KIND, on("ext4")),
        0x5846_5342 => Finding::ok(KIND, on("xfs")),
        0xF2F5_2010 => Finding::ok(KIND, on("f2fs")),
        0x9123_683E => Finding::warn(KIND, on("btrfs"), "copy-on-write slows rewrites: use ext4 or xfs, or chattr +C"),
        0x2FC1_2FC1 => Finding::warn(KIND, on("zfs"), "copy-on-write slows rewrites: use ext4 or xfs"),
        0x0102_1994 | 0x8584_58F6 => {
            Finding::warn(KIND, on("tmpfs"), "messages there are lost with the machine: put the store on a disk")
        }
        0x794C_7630 => Finding::warn(KIND, on("overlay"), "put the store on a volume, not into the container's layer"),
        0x6969 => Finding::warn(KIND, on("nfs"), "put the store on a local disk"),
        0x6573_5546 => Finding::warn(KIND, on("fuse"), "put the store on a local ext4 or xfs"),
        other => Finding::warn(KIND, on(&format!("unknown kind {other:#x}")), "ext4 and xfs are the ones measured"),
    }
}

fn direct(folder: &Path) -> Finding {
    const BUFFERED: &str = "RingMQ falls back to buffered writes, which are slower: put the store on ext4 or xfs";
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    // An unnamed file: it is gone with its descriptor, whatever happens to this process.
    let file = match rustix::fs::open(folder, flags | OFlags::DIRECT, Mode::RUSR | Mode::WUSR) {
        Ok(file) => file,
        Err(Errno::INVAL) => return Finding::warn(DIRECT, "the filesystem refuses O_DIRECT", BUFFERED),
        Err(Errno::OPNOTSUPP | Errno::ISDIR) => {
            return Finding::warn(
                DIRECT,
                "cannot be tried: no unnamed files here",
                "ext4 and xfs are the ones measured",
            );
        }
        Err(Errno::ROFS) => return Finding::fail(DIRECT, "the filesystem is read-only", "mount it read-write"),
        Err(error) => {
            let found = format!("no file can be made in {}: {error}", folder.display());
            return Finding::fail(DIRECT, found, "let this user write to the folder, or choose another");
        }
    };
    let alignment = alignment(&file);
    match write_block(&file) {
        Ok(()) if alignment.is_some_and(|bytes| bytes as usize > BLOCK_BYTES) => Finding::warn(
            DIRECT,
            format!("needs blocks of {} bytes", alignment.unwrap_or_default()),
            "RingMQ writes blocks of 4096 bytes: use a device with such blocks",
        ),
        Ok(()) => {
            let known = alignment.map_or(String::new(), |bytes| format!(", aligned to {bytes} bytes"));
            Finding::ok(DIRECT, format!("works{known}"))
        }
        Err(Errno::NOSPC | Errno::DQUOT) => {
            Finding::fail(DIRECT, "the filesystem is full", "free some space or raise the quota")
        }
        Err(error) => Finding::warn(DIRECT, format!("an aligned write failed: {error}"), BUFFERED),
    }
}

/// The alignment that direct I/O on this file needs, bytes; `None` if the kernel does not say (before 6.1).
fn alignment(file: &OwnedFd) -> Option<u32> {
    const DIOALIGN: StatxFlags = StatxFlags::from_bits_retain(0x2000); // STATX_DIOALIGN of linux/stat.h
    let facts = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, DIOALIGN).ok()?;
    let is_known = facts.stx_mask & DIOALIGN.bits() != 0 && facts.stx_dio_offset_align != 0;
    is_known.then_some(facts.stx_dio_offset_align.max(facts.stx_dio_mem_align))
}

fn write_block(file: &OwnedFd) -> Result<(), Errno> {
    let space = vec![0_u8; 2 * BLOCK_BYTES];
    let start = space.as_ptr().align_offset(BLOCK_BYTES);
    let block = space.get(start..start.saturating_add(BLOCK_BYTES)).ok_or(Errno::INVAL)?;
    let written = rustix::io::pwrite(file, block, 0)?;
    if written == BLOCK_BYTES { Ok(()) } else { Err(Errno::IO) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Level;

    #[test]
    fn filesystems_without_a_disk_are_warned_about() {
        let folder = Path::new("/data");
        assert_eq!(judge_kind(0xEF53, folder), Finding::ok(KIND, "ext4 at /data"));
        for magic in [0x0102_1994, 0x794C_7630, 0x6969, 0x9123_683E, 1] {
            assert_eq!(judge_kind(magic, folder).level, Level::Warn, "{magic:#x}");
        }
    }

    #[test]
    fn a_folder_that_takes_no_files_is_not_ok() {
        assert_ne!(direct(Path::new("/proc")).level, Level::Ok);
    }
}
