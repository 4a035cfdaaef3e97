//! The core's one ring: submissions collected over a turn, completions handed out by token.

use std::io;
use std::time::Duration;

use io_uring::{IoUring, squeue, types};

/// Entries of the submission queue. A turn that submits more enters the kernel early; nothing is lost.
const SUBMISSION_ENTRIES: u32 = 1024;
/// Entries of the completion queue: every connection of a busy core may complete in one turn.
const COMPLETION_ENTRIES: u32 = 8192;

/// What an operation belongs to, carried through the kernel as `user_data`.
///
/// | bits  | field        | meaning                                                       |
/// |------:|--------------|---------------------------------------------------------------|
/// | 56-63 | `kind`       | which state machine submitted it (0 is the turn loop's own)   |
/// | 32-55 | `generation` | low 24 bits of the slot's use count, to tell late completions |
/// |  0-31 | `index`      | slot in that state machine's table                            |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    pub kind: u8,
    pub generation: u32,
    pub index: u32,
}

impl Token {
    const GENERATION_MASK: u32 = 0x00ff_ffff;

    pub const fn new(kind: u8, generation: u32, index: u32) -> Self {
        Self { kind, generation: generation & Self::GENERATION_MASK, index }
    }

    pub const fn to_user_data(self) -> u64 {
        (self.kind as u64) << 56 | ((self.generation & Self::GENERATION_MASK) as u64) << 32 | self.index as u64
    }

    pub const fn from_user_data(raw: u64) -> Self {
        Self { kind: (raw >> 56) as u8, generation: (raw >> 32) as u32 & Self::GENERATION_MASK, index: raw as u32 }
    }
}

/// One finished operation. `result` is the kernel's: a count, a descriptor, or a negated errno.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    pub token: Token,
    pub result: i32,
    pub flags: u32,
}

impl Completion {
    /// The result as `std::io` sees it.
    pub fn outcome(&self) -> io::Result<u32> {
        u32::try_from(self.result).map_err(|_| io::Error::from_raw_os_error(-self.result))
    }

    /// The receive buffer the kernel picked, for operations that let it pick one.
    pub fn buffer(&self) -> Option<u16> {
        io_uring::cqueue::buffer_select(self.flags)
    }
}

/// Why a ring could not be had; the text says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    #[error(
        "io_uring is not available: the kernel or a seccomp profile refuses it ({0}). Use Linux 6.1 or later, set \
         kernel.io_uring_disabled=0, and in a container allow the io_uring_setup, io_uring_enter and \
         io_uring_register system calls"
    )]
    NotPermitted(io::Error),
    #[error("io_uring lacks a feature this server needs ({0}): Linux 6.1 or later is required")]
    TooOld(io::Error),
    #[error(
        "io_uring could not lock its memory ({0}): raise RLIMIT_MEMLOCK to at least 512 KiB per core \
         (`ulimit -l`, or LimitMEMLOCK= in a systemd unit)"
    )]
    LockedMemory(io::Error),
    #[error("io_uring could not be set up: {0}")]
    Other(io::Error),
}

impl RingError {
    fn of(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES | libc::ENOSYS) => Self::NotPermitted(error),
            Some(libc::EINVAL) => Self::TooOld(error),
            Some(libc::ENOMEM) => Self::LockedMemory(error),
            _ => Self::Other(error),
        }
    }
}

pub struct Ring {
    uring: IoUring,
    submitted_count: u64,
    enter_count: u64,
}

impl Ring {
    /// Must run on the thread that will use the ring (single issuer).
    pub fn new() -> Result<Self, RingError> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_cqsize(COMPLETION_ENTRIES)
            .build(SUBMISSION_ENTRIES)
            .map_err(RingError::of)?;
        Ok(Self { uring, submitted_count: 0, enter_count: 0 })
    }

    /// Queues one operation; it reaches the kernel with the turn's next [`enter`](Self::enter), or at once
    /// when the queue is full.
    ///
    /// # Safety
    /// Everything the entry points to (buffers, addresses, descriptors) must stay valid and, where the
    /// kernel writes, unread until the completion with its token has been handed out.
    pub unsafe fn push(&mut self, entry: &squeue::Entry) {
        self.submitted_count += 1;
        loop {
            // SAFETY: the caller keeps what the entry points to alive until its completion.
            if unsafe { self.uring.submission().push(entry) }.is_ok() {
                return;
            }
            // Full: hand what is queued to the kernel. An error here (EBUSY, EINTR, EAGAIN) leaves the queue
            // as it is and the next round tries again; there is nowhere to report it that could do better.
            let _ = self.uring.submit();
        }
    }

    /// Submits what is queued and reaps without waiting, or waits up to `wait` for one completion.
    pub(crate) fn enter(&mut self, wait: Option<Duration>) -> io::Result<()> {
        self.enter_count += 1;
        let outcome = match wait {
            Some(limit) => {
                let limit = types::Timespec::from(limit);
                let arguments = types::SubmitArgs::new().timespec(&limit);
                self.uring.submitter().submit_with_args(1, &arguments)
            }
            None => {
                let pending = self.uring.submission().len() as u32;
                let submitter = self.uring.submitter();
                const GET_EVENTS: u32 = 1; // IORING_ENTER_GETEVENTS: run deferred completions
                // SAFETY: no signal mask or extended argument is passed.
                unsafe { submitter.enter::<libc::sigset_t>(pending, 0, GET_EVENTS, None) }
            }
        };
        match outcome {
            Ok(_) => Ok(()),
            // ETIME: the wait ran out. EINTR: a signal. EBUSY, EAGAIN: the kernel wants completions reaped first.
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Whether completions are there, or the kernel has some to post at the next [`enter`](Self::enter). No system call.
    pub(crate) fn has_completions(&mut self) -> bool {
        self.uring.submission().taskrun() || !self.uring.completion().is_empty()
    }

    pub(crate) fn next_completion(&mut self) -> Option<Completion> {
        let entry = self.uring.completion().next()?;
        Some(Completion {
            token: Token::from_user_data(entry.user_data()),
            result: entry.result(),
            flags: entry.flags(),
        })
    }

    pub(crate) fn submitter(&self) -> io_uring::Submitter<'_> {
        self.uring.submitter()
    }

    /// Operations submitted and kernel entries so far: entries per operation is the batching a turn achieves.
    pub fn counts(&self) -> (u64, u64) {
        (self.submitted_count, self.enter_count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_the_kernel_and_back() {
        for token in [Token::new(0, 0, 0), Token::new(255, 0x00ff_ffff, u32::MAX), Token::new(3, 77, 12)] {
            assert_eq!(Token::from_user_data(token.to_user_data()), token);
        }
        assert_eq!(Token::new(1, 0x0100_0001, 0).generation, 1, "generations wrap at 24 bits");
    }
}
