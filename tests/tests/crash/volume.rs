//! A disk that loses power when a test says so: a file system in memory, mounted through FUSE.
//!
//! It keeps promises as the standard states them and none beyond: a write is safe after fsync or fdatasync of its
//! file, or by itself when it was synchronous (O_DSYNC, RWF_DSYNC); a name is safe after fsync of its folder. A disk
//! file system often does more, and what relies on that is found here. Names of one folder are lost from the last
//! change backwards, writes of one file independently of each other, whole or by sectors.
//!
//! Every file is opened for direct I/O, so the kernel caches nothing and each write arrives at once; the kernel passes
//! RWF_DSYNC on as O_DSYNC among the write's flags. A write is answered by a device thread a moment after it came, in
//! an order of its own, so that a power cut meets writes in flight.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, Session, TimeOrNow,
    WriteFlags,
};
use rmq_tests::{Folder, Process};

use crate::image::{Image, Loss};

/// The kernel is to ask every time: names and sizes change behind its back at a power cut.
const NO_CACHE: Duration = Duration::ZERO;
const GENERATION: Generation = Generation(0);
const FILE: FileHandle = FileHandle(0);
const BLOCK_BYTES: u32 = 4096;
/// Free blocks the volume says to have: 64 GiB.
const FREE_BLOCKS: u64 = 1 << 24;
/// Longest time between two completions of the device.
const DEVICE_LATENCY_MAX_US: u64 = 150;

/// What happens when a given number of changes have come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// The power goes: everything fails until [`Volume::restore_power`].
    PowerCut,
    /// [`Volume::has_triggered`] says so, and the volume goes on.
    Notice,
}

/// A mounted volume. Dropping it unmounts it.
pub struct Volume {
    // Unmounted before the folder is removed.
    _session: BackgroundSession,
    _unmounter: Process,
    folder: Folder,
    shared: Arc<Shared>,
}

impl Volume {
    /// Why volumes cannot be mounted on this machine, if they cannot.
    pub fn missing() -> Option<&'static str> {
        let can_open = std::fs::File::options().read(true).write(true).open("/dev/fuse").is_ok();
        (!can_open).then_some("/dev/fuse cannot be opened")
    }

    /// Mounts an empty volume whose losses are drawn from `seed`.
    pub fn mount(seed: u64) -> io::Result<Self> {
        let folder = Folder::new();
        let path = mount_point(&folder);
        std::fs::create_dir(&path)?;
        let root = Node::Directory(Directory::default());
        let state = State {
            nodes: HashMap::from([(INodeNo::ROOT, root)]),
            last_inode: INodeNo::ROOT.0,
            is_powered: true,
            has_ended: false,
            has_triggered: false,
            in_flight: Vec::new(),
            changes: 0,
            trigger: None,
            rng: fastrand::Rng::with_seed(seed),
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), has_work: Condvar::new() });
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("rmq-tests".to_owned())];
        let session = Session::new(Mounted { shared: Arc::clone(&shared) }, &path, &config)?;
        let unmounter = Process::unmounter(&path);
        let session = session.spawn()?;
        let device = Arc::clone(&shared);
        std::thread::spawn(move || device.complete_writes());
        Ok(Self { _session: session, _unmounter: unmounter, folder, shared })
    }

    /// The mounted folder.
    pub fn path(&self) -> PathBuf {
        mount_point(&self.folder)
    }

    /// Lets `trigger` happen at the change after `changes` more of them. A write counts twice: when it comes in and
    /// when it is answered.
    pub fn arm(&self, trigger: Trigger, changes: u64) {
        let mut state = self.shared.lock();
        state.trigger = Some((state.changes + changes, trigger));
        state.has_triggered = false;
    }

    pub fn disarm(&self) {
        self.shared.lock().trigger = None;
    }

    pub fn has_triggered(&self) -> bool {
        self.shared.lock().has_triggered
    }

    /// Serves what the power cut left. Whatever the volume's users still had open is gone.
    pub fn restore_power(&self) {
        self.shared.lock().is_powered = true;
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        self.shared.lock().has_ended = true;
        self.shared.has_work.notify_all();
    }
}

fn mount_point(folder: &Folder) -> PathBuf {
    folder.path().join("volume")
}

enum Node {
    File(Image),
    Directory(Directory),
}

/// A folder's names, with the changes that fsync has not made stable yet.
#[derive(Default)]
struct Directory {
    stable: BTreeMap<OsString, INodeNo>,
    changes: Vec<NameChange>,
    current: BTreeMap<OsString, INodeNo>,
}

enum NameChange {
    Add(OsString, INodeNo),
    Remove(OsString),
    Rename(OsString, OsString),
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<OsString, INodeNo>) {
        match self {
            Self::Add(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            Self::Remove(name) => {
                names.remove(name);
            }
            Self::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
        }
    }
}

impl Directory {
    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.current);
        self.changes.push(change);
    }

    fn sync(&mut self) {
        self.changes.clear();
        self.stable.clone_from(&self.current);
    }

    fn after_power_cut(&self, loss: Loss, rng: &mut fastrand::Rng) -> BTreeMap<OsString, INodeNo> {
        let mut names = self.stable.clone();
        for change in &self.changes {
            if loss.keep <= rng.f64() {
                break;
            }
            change.apply(&mut names);
        }
        names
    }
}

struct InFlight {
    inode: INodeNo,
    change: u64,
    is_synchronous: bool,
    bytes: u32,
    reply: ReplyWrite,
}

struct State {
    nodes: HashMap<INodeNo, Node>,
    last_inode: u64,
    is_powered: bool,
    has_ended: bool,
    has_triggered: bool,
    in_flight: Vec<InFlight>,
    /// Changes so far.
    changes: u64,
    trigger: Option<(u64, Trigger)>,
    rng: fastrand::Rng,
}

impl State {
    fn powered(&self) -> Result<(), Errno> {
        if self.is_powered { Ok(()) } else { Err(Errno::EIO) }
    }

    /// Counts a change that is about to happen. It does not when the power goes with it.
    fn count_change(&mut self) -> Result<(), Errno> {
        self.powered()?;
        self.changes += 1;
        if let Some((_, trigger)) = self.trigger.take_if(|(at, _)| *at <= self.changes) {
            self.has_triggered = true;
            if trigger == Trigger::PowerCut {
                self.cut_power();
            }
        }
        self.powered()
    }

    fn cut_power(&mut self) {
        self.is_powered = false;
        let loss = Loss::draw(&mut self.rng);
        let mut left = HashMap::new();
        self.keep(INodeNo::ROOT, INodeNo::ROOT, loss, &mut left);
        self.nodes = left;
        for write in self.in_flight.drain(..) {
            write.reply.error(Errno::EIO);
        }
    }

    /// Puts what is left of `old`, and of everything in it, into `left` under the number `new`. Numbers are not used
    /// again, so that a write of the time before the cut cannot come through later.
    fn keep(&mut self, old: INodeNo, new: INodeNo, loss: Loss, left: &mut HashMap<INodeNo, Node>) {
        let Some(node) = self.nodes.get(&old) else { return };
        match node {
            Node::File(image) => {
                let content = image.after_power_cut(loss, &mut self.rng);
                left.insert(new, Node::File(Image::stable(content)));
            }
            Node::Directory(directory) => {
                let mut names = directory.after_power_cut(loss, &mut self.rng);
                for inode in names.values_mut() {
                    let old = std::mem::replace(inode, self.next_inode());
                    self.keep(old, *inode, loss, left);
                }
                let directory = Directory { stable: names.clone(), changes: Vec::new(), current: names };
                left.insert(new, Node::Directory(directory));
            }
        }
    }

    fn next_inode(&mut self) -> INodeNo {
        self.last_inode += 1;
        INodeNo(self.last_inode)
    }

    fn file(&mut self, inode: INodeNo) -> Result<&mut Image, Errno> {
        self.powered()?;
        match self.nodes.get_mut(&inode) {
            Some(Node::File(image)) => Ok(image),
            Some(Node::Directory(_)) => Err(Errno::EISDIR),
            None => Err(Errno::ESTALE),
        }
    }

    fn directory(&mut self, inode: INodeNo) -> Result<&mut Directory, Errno> {
        self.powered()?;
        match self.nodes.get_mut(&inode) {
            Some(Node::Directory(directory)) => Ok(directory),
            Some(Node::File(_)) => Err(Errno::ENOTDIR),
            None => Err(Errno::ESTALE),
        }
    }

    fn find(&mut self, parent: INodeNo, name: &OsStr) -> Result<INodeNo, Errno> {
        self.directory(parent)?.current.get(name).copied().ok_or(Errno::ENOENT)
    }

    fn add(&mut self, parent: INodeNo, name: &OsStr, node: Node) -> Result<FileAttr, Errno> {
        self.count_change()?;
        if self.directory(parent)?.current.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let inode = self.next_inode();
        self.nodes.insert(inode, node);
        self.directory(parent)?.change(NameChange::Add(name.to_owned(), inode));
        self.attributes(inode)
    }

    fn remove(&mut self, parent: INodeNo, name: &OsStr) -> Result<(), Errno> {
        self.count_change()?;
        self.find(parent, name)?;
        // The node stays: who has it open goes on with it, and the power cut may bring its name back.
        self.directory(parent)?.change(NameChange::Remove(name.to_owned()));
        Ok(())
    }

    fn rename(&mut self, parent: INodeNo, from: &OsStr, to: &OsStr) -> Result<(), Errno> {
        self.count_change()?;
        self.find(parent, from)?;
        self.directory(parent)?.change(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn attributes(&self, inode: INodeNo) -> Result<FileAttr, Errno> {
        self.powered()?;
        let (kind, perm, size) = match self.nodes.get(&inode).ok_or(Errno::ESTALE)? {
            Node::File(image) => (FileType::RegularFile, 0o640, image.content().len() as u64),
            Node::Directory(_) => (FileType::Directory, 0o750, 0),
        };
        let epoch = SystemTime::UNIX_EPOCH;
        Ok(FileAttr {
            ino: inode,
            size,
            blocks: size.div_ceil(512),
            atime: epoch,
            mtime: epoch,
            ctime: epoch,
            crtime: epoch,
            kind,
            perm,
            nlink: 1,
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            rdev: 0,
            blksize: BLOCK_BYTES,
            flags: 0,
        })
    }
}

struct Shared {
    state: Mutex<State>,
    /// Writes are in flight, or the volume ends.
    has_work: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no user of the volume panics")
    }

    /// The device: answers writes, one at a time and in any order.
    fn complete_writes(&self) {
        let mut latency = fastrand::Rng::with_seed(self.lock().rng.u64(..));
        loop {
            let is_idle = |state: &mut State| state.in_flight.is_empty() && !state.has_ended;
            let state = self.has_work.wait_while(self.lock(), is_idle).expect("no user of the volume panics");
            if state.has_ended {
                return;
            }
            drop(state);
            // How long a device takes; nobody waits for a condition here.
            std::thread::sleep(Duration::from_micros(latency.u64(..DEVICE_LATENCY_MAX_US)));
            let mut state = self.lock();
            // With the power, the writes in flight are gone.
            if state.count_change().is_err() || state.in_flight.is_empty() {
                continue;
            }
            let chosen = latency.usize(..state.in_flight.len());
            let write = state.in_flight.swap_remove(chosen);
            if let Some(Node::File(image)) = state.nodes.get_mut(&write.inode) {
                image.complete(write.change, write.is_synchronous);
            }
            write.reply.written(write.bytes);
        }
    }
}

/// What the kernel talks to.
struct Mounted {
    shared: Arc<Shared>,
}

impl Mounted {
    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.lock()
    }
}

/// Answers a request whose answer is empty.
fn answer(reply: ReplyEmpty, outcome: Result<(), Errno>) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn answer_entry(reply: ReplyEntry, outcome: Result<FileAttr, Errno>) {
    match outcome {
        Ok(attributes) => reply.entry(&NO_CACHE, &attributes, GENERATION),
        Err(error) => reply.error(error),
    }
}

fn answer_attributes(reply: ReplyAttr, outcome: Result<FileAttr, Errno>) {
    match outcome {
        Ok(attributes) => reply.attr(&NO_CACHE, &attributes),
        Err(error) => reply.error(error),
    }
}

/// A place or length in a file, which is in memory.
fn index(number: u64) -> Result<usize, Errno> {
    usize::try_from(number).map_err(|_| Errno::EFBIG)
}

impl Filesystem for Mounted {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let missing = |flags| io::Error::other(format!("the kernel's FUSE lacks {flags:?}"));
        config.add_capabilities(InitFlags::FUSE_ASYNC_DIO).map_err(missing)
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut state = self.state();
        let found = state.find(parent, name).and_then(|inode| state.attributes(inode));
        answer_entry(reply, found);
    }

    fn getattr(&self, _request: &Request, inode: INodeNo, _file: Option<FileHandle>, reply: ReplyAttr) {
        answer_attributes(reply, self.state().attributes(inode));
    }

    fn setattr(
        &self,
        _request: &Request,
        inode: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _accessed: Option<TimeOrNow>,
        _modified: Option<TimeOrNow>,
        _changed: Option<SystemTime>,
        _file: Option<FileHandle>,
        _created: Option<SystemTime>,
        _flagged: Option<SystemTime>,
        _backed_up: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut state = self.state();
        let mut resize = |size: u64| {
            state.count_change()?;
            state.file(inode)?.set_length(index(size)?);
            Ok(())
        };
        let outcome = size.map_or(Ok(()), &mut resize).and_then(|()| state.attributes(inode));
        answer_attributes(reply, outcome);
    }

    fn mkdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, _mode: u32, _mask: u32, reply: ReplyEntry) {
        let node = Node::Directory(Directory::default());
        answer_entry(reply, self.state().add(parent, name, node));
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(reply, self.state().remove(parent, name));
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if new_parent != parent || !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        answer(reply, self.state().rename(parent, name, new_name));
    }

    fn create(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _mask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        match self.state().add(parent, name, Node::File(Image::default())) {
            Ok(attributes) => reply.created(&NO_CACHE, &attributes, GENERATION, FILE, open_flags()),
            Err(error) => reply.error(error),
        }
    }

    fn open(&self, _request: &Request, inode: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.state().file(inode) {
            Ok(_) => reply.opened(FILE, open_flags()),
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _request: &Request,
        inode: INodeNo,
        _file: FileHandle,
        at: u64,
        bytes: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut state = self.state();
        let read = state.file(inode).and_then(|image| {
            let content = image.content();
            let start = index(at)?.min(content.len());
            Ok(&content[start..content.len().min(start + bytes as usize)])
        });
        match read {
            Ok(data) => reply.data(data),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _request: &Request,
        inode: INodeNo,
        _file: FileHandle,
        at: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut state = self.state();
        let begun = index(at).and_then(|at| Ok(state.file(inode)?.write(at, data)));
        let change = match begun {
            Ok(change) => change,
            Err(error) => return reply.error(error),
        };
        let is_synchronous = flags.0 & libc::O_DSYNC != 0;
        state.in_flight.push(InFlight { inode, change, is_synchronous, bytes: data.len() as u32, reply });
        // If the power goes with this change, the write is answered together with the others in flight.
        let _ = state.count_change();
        drop(state);
        self.shared.has_work.notify_one();
    }

    fn flush(&self, _request: &Request, _inode: INodeNo, _file: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _request: &Request, inode: INodeNo, _file: FileHandle, _data: bool, reply: ReplyEmpty) {
        let mut state = self.state();
        let outcome = state.count_change().and_then(|()| state.file(inode).map(Image::sync));
        answer(reply, outcome);
    }

    fn fsyncdir(&self, _request: &Request, inode: INodeNo, _file: FileHandle, _data: bool, reply: ReplyEmpty) {
        let mut state = self.state();
        let outcome = state.count_change().and_then(|()| state.directory(inode).map(Directory::sync));
        answer(reply, outcome);
    }

    fn readdir(&self, _request: &Request, inode: INodeNo, _file: FileHandle, after: u64, mut reply: ReplyDirectory) {
        let mut state = self.state();
        let names: Vec<_> = match state.directory(inode) {
            Ok(directory) => directory.current.clone().into_iter().collect(),
            Err(error) => return reply.error(error),
        };
        let skipped = usize::try_from(after).unwrap_or(usize::MAX);
        for (position, (name, entry)) in names.into_iter().enumerate().skip(skipped) {
            let kind = match state.nodes.get(&entry) {
                Some(Node::Directory(_)) => FileType::Directory,
                _ => FileType::RegularFile,
            };
            if reply.add(entry, position as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _request: &Request, _inode: INodeNo, reply: ReplyStatfs) {
        reply.statfs(2 * FREE_BLOCKS, FREE_BLOCKS, FREE_BLOCKS, 1 << 20, 1 << 20, BLOCK_BYTES, 255, BLOCK_BYTES);
    }

    fn fallocate(
        &self,
        _request: &Request,
        inode: INodeNo,
        _file: FileHandle,
        at: u64,
        bytes: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        if mode != 0 {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let mut state = self.state();
        let outcome = state.count_change().and_then(|()| {
            let end = index(at.saturating_add(bytes))?;
            state.file(inode)?.allocate(end);
            Ok(())
        });
        answer(reply, outcome);
    }
}

fn open_flags() -> FopenFlags {
    FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::{IoSlice, Write};
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::Path;

    use rmq_tests::skip;
    use rustix::fs::OFlags;
    use rustix::io::{ReadWriteFlags, pwritev2};

    use super::*;

    /// A block where O_DIRECT wants it in memory.
    #[repr(align(4096))]
    struct Block([u8; 4096]);

    fn write_direct(path: &Path, byte: u8, flags: ReadWriteFlags) {
        let direct = OFlags::DIRECT.bits() as i32;
        let file = File::options().write(true).custom_flags(direct).open(path).expect("opened with O_DIRECT");
        let block = Block([byte; 4096]);
        assert_eq!(pwritev2(&file, &[IoSlice::new(&block.0)], 0, flags), Ok(4096));
    }

    fn is_power_cut_by(volume: &Volume, change: impl FnOnce()) {
        volume.arm(Trigger::PowerCut, 1);
        change();
        assert!(volume.has_triggered());
        volume.restore_power();
    }

    #[test]
    fn a_power_cut_takes_what_was_not_made_stable_and_nothing_else() {
        if let Some(reason) = Volume::missing() {
            return skip(reason);
        }
        let (mut kept_plain, mut lost_plain) = (0, 0);
        for seed in 0..40 {
            let volume = Volume::mount(seed).expect("a volume");
            let root = volume.path();
            let synchronous = root.join("synchronous");
            let plain = root.join("plain");
            for path in [&synchronous, &plain] {
                let mut file = File::create(path).expect("a file");
                file.write_all(&[1; 4096]).expect("written");
                file.sync_all().expect("synced");
            }
            File::open(&root).and_then(|root| root.sync_all()).expect("names synced");
            write_direct(&synchronous, 2, ReadWriteFlags::DSYNC);
            write_direct(&plain, 2, ReadWriteFlags::empty());
            fs::write(root.join("unsynced"), b"name").expect("written");
            is_power_cut_by(&volume, || assert!(fs::create_dir(root.join("last")).is_err()));
            assert!(fs::read(&synchronous).expect("read") == [2; 4096], "seed {seed}: a synchronous write was lost");
            match fs::read(&plain).expect("read") {
                content if content == [2; 4096] => kept_plain += 1,
                _ => lost_plain += 1,
            }
            assert!(!root.join("last").exists());
        }
        assert!(0 < kept_plain && 0 < lost_plain, "{kept_plain} kept, {lost_plain} lost");
    }

    #[test]
    fn a_renamed_file_is_the_old_or_the_new_one_after_a_power_cut() {
        if let Some(reason) = Volume::missing() {
            return skip(reason);
        }
        let mut seen = [0; 2];
        for seed in 0..40 {
            let volume = Volume::mount(seed).expect("a volume");
            let (root, path) = (volume.path(), volume.path().join("file"));
            let replace = |text: &[u8]| {
                let temporary = root.join("file.new");
                let mut file = File::create(&temporary).expect("a file");
                file.write_all(text).expect("written");
                file.sync_all().expect("synced");
                fs::rename(temporary, &path).expect("renamed");
            };
            replace(b"0");
            File::open(&root).and_then(|root| root.sync_all()).expect("names synced");
            replace(b"1");
            is_power_cut_by(&volume, || assert!(fs::remove_file(&path).is_err()));
            let text = fs::read_to_string(&path).expect("there in any case");
            seen[text.parse::<usize>().expect("0 or 1")] += 1;
        }
        assert!(seen.iter().all(|count| 0 < *count), "{seen:?}");
    }
}
