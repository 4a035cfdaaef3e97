//! What a connection still has to send: own bytes and slices shared with the log, in order.

use std::ptr;

/// Most parts one vectored send may name (the kernel's UIO_MAXIOV).
const PARTS_PER_SEND_MAX: usize = 1024;
/// A shared slice up to this size is copied: it would keep a whole chunk of the log in memory until it is sent.
const COPIED_BYTES_MAX: usize = 4096;
/// A buffer that grew beyond this is given back once empty, so that one large reply does not stay resident.
const KEPT_BYTES_MAX: usize = 256 * 1024;

enum Part<B> {
    Own(usize),
    Shared(B),
}

/// Replies waiting for the next send. `B` is a reference-counted slice; unless it is small, its bytes are not copied.
pub struct Outbox<B> {
    bytes: Vec<u8>,
    parts: Vec<Part<B>>,
    /// How much of `bytes` the parts already cover.
    covered_bytes: usize,
    shared_bytes: usize,
}

impl<B> Default for Outbox<B> {
    fn default() -> Self {
        Self { bytes: Vec::new(), parts: Vec::new(), covered_bytes: 0, shared_bytes: 0 }
    }
}

impl<B: AsRef<[u8]>> Outbox<B> {
    /// Where frames are encoded; only append.
    pub fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Sends `slice` after everything appended so far.
    pub fn share(&mut self, slice: B) {
        if slice.as_ref().len() <= COPIED_BYTES_MAX {
            return self.bytes.extend_from_slice(slice.as_ref());
        }
        let own = self.bytes.len() - self.covered_bytes;
        if own > 0 {
            self.parts.push(Part::Own(own));
            self.covered_bytes = self.bytes.len();
        }
        self.shared_bytes += slice.as_ref().len();
        self.parts.push(Part::Shared(slice));
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.parts.is_empty()
    }

    pub fn queued_bytes(&self) -> usize {
        self.bytes.len() + self.shared_bytes
    }
}

/// A send under way. The kernel reads through pointers into it, so it is boxed with its connection and
/// neither moved nor changed until the completion.
pub(super) struct Sending<B> {
    outbox: Outbox<B>,
    vectors: Vec<libc::iovec>,
    /// First vector not yet sent whole.
    next_vector: usize,
    message: libc::msghdr,
    pub is_active: bool,
}

impl<B: AsRef<[u8]>> Sending<B> {
    pub fn new() -> Self {
        // SAFETY: msghdr is plain data for which all zeroes is a valid (empty) value.
        let message = unsafe { std::mem::zeroed() };
        Self { outbox: Outbox::default(), vectors: Vec::new(), next_vector: 0, message, is_active: false }
    }

    pub fn queued_bytes(&self) -> usize {
        if self.is_active { self.outbox.queued_bytes() } else { 0 }
    }

    /// Takes over what is queued, leaving an empty outbox with the previous one's capacity.
    pub fn load(&mut self, queued: &mut Outbox<B>) {
        assert!(!self.is_active, "one send at a time keeps the bytes in order");
        std::mem::swap(&mut self.outbox, queued);
        let outbox = &mut self.outbox;
        let own = outbox.bytes.len() - outbox.covered_bytes;
        if own > 0 {
            outbox.parts.push(Part::Own(own));
            outbox.covered_bytes = outbox.bytes.len();
        }
        let mut own_start = 0;
        for part in &outbox.parts {
            let slice = match part {
                Part::Own(length) => {
                    own_start += length;
                    &outbox.bytes[own_start - length..own_start]
                }
                Part::Shared(slice) => slice.as_ref(),
            };
            self.vectors.push(libc::iovec { iov_base: slice.as_ptr().cast_mut().cast(), iov_len: slice.len() });
        }
        self.is_active = true;
    }

    /// The message header for the rest of the send.
    pub fn message(&mut self) -> *const libc::msghdr {
        let rest = &mut self.vectors[self.next_vector..];
        self.message.msg_iov = rest.as_mut_ptr();
        self.message.msg_iovlen = rest.len().min(PARTS_PER_SEND_MAX);
        ptr::from_ref(&self.message)
    }

    /// Accounts for `sent` bytes. True when nothing is left; the shared slices are released then.
    pub fn advance(&mut self, mut sent: usize) -> bool {
        while let Some(vector) = self.vectors.get_mut(self.next_vector) {
            if sent < vector.iov_len {
                // SAFETY: stays inside the slice the vector names, which `outbox` keeps alive.
                vector.iov_base = unsafe { vector.iov_base.cast::<u8>().add(sent).cast() };
                vector.iov_len -= sent;
                return false;
            }
            sent -= vector.iov_len;
            self.next_vector += 1;
        }
        assert!(sent == 0, "the kernel cannot send more than it was given");
        self.unload();
        true
    }

    pub fn unload(&mut self) {
        self.vectors.clear();
        self.next_vector = 0;
        self.outbox.parts.clear();
        self.outbox.bytes.clear();
        if self.outbox.bytes.capacity() > KEPT_BYTES_MAX {
            self.outbox.bytes = Vec::new();
        }
        self.outbox.covered_bytes = 0;
        self.outbox.shared_bytes = 0;
        self.is_active = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(sending: &mut Sending<Vec<u8>>, step: usize) -> Vec<u8> {
        let mut sent = Vec::new();
        loop {
            let message = sending.message();
            // SAFETY: the header and what it names belong to `sending`, which is not touched meanwhile.
            let first = unsafe { *(*message).msg_iov };
            let take = step.min(first.iov_len);
            // SAFETY: as above.
            sent.extend_from_slice(unsafe { std::slice::from_raw_parts(first.iov_base.cast(), take) });
            if sending.advance(take) {
                return sent;
            }
        }
    }

    #[test]
    fn own_and_shared_bytes_leave_in_order_whatever_the_kernel_takes() {
        let (body, more) = (vec![b'b'; COPIED_BYTES_MAX + 1], vec![b'm'; COPIED_BYTES_MAX + 3]);
        let expected = [b"headsmall", &body[..], &more, b"tail"].concat();
        for step in [1, 2, 3, 5, 4096, 4097, 10_000] {
            let mut outbox = Outbox::default();
            outbox.bytes().extend_from_slice(b"head");
            outbox.share(b"small".to_vec());
            outbox.share(body.clone());
            outbox.share(more.clone());
            outbox.bytes().extend_from_slice(b"tail");
            let mut sending = Sending::new();
            sending.load(&mut outbox);
            assert!(outbox.is_empty());
            assert_eq!(drain(&mut sending, step), expected);
            assert!(!sending.is_active);
        }
    }
}
