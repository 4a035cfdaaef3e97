//! The second step of a transaction: END_TRANSACTION for a half message that was acknowledged.

use crate::error::BenchError;
use crate::frame::{self, FrameWriter, Reply, Serialization, request};
use crate::send_frame::{MessageId, UNIQUE_KEY_BYTES};

/// RocketMQ's commit in `commitOrRollback`.
const COMMIT: i64 = 8;
/// Hex digits of an offset message id that are the physical offset: the last ones.
const OFFSET_DIGITS: usize = 16;

/// What is the same for all commits of a run.
pub struct Commits {
    pub serialization: Serialization,
    pub group: String,
}

impl Commits {
    /// Appends the commit of the half message `id`, which the broker acknowledged with `reply`. It asks for an answer, which
    /// stock clients do without, because only an answered commit is known to be stored.
    pub fn append_to(
        &self,
        out: &mut Vec<u8>,
        opaque: i32,
        topic: &str,
        id: MessageId,
        reply: &Reply<'_>,
    ) -> Result<(), BenchError> {
        let half = HalfMessage::read(reply)?;
        let mut unique_key = [0; UNIQUE_KEY_BYTES];
        frame::put_hex(&mut unique_key, 0, id.producer);
        frame::put_hex(&mut unique_key, UNIQUE_KEY_BYTES / 2, id.serial);
        let unique_key = std::str::from_utf8(&unique_key).expect("hex digits are UTF-8");
        let mut writer = FrameWriter::begin(out, self.serialization, request::END_TRANSACTION, opaque);
        writer.text("topic", topic);
        writer.text("producerGroup", &self.group);
        writer.int("tranStateTableOffset", half.queue_offset);
        writer.int("commitLogOffset", half.physical_offset);
        writer.int("commitOrRollback", COMMIT);
        writer.text("fromTransactionCheck", "false");
        writer.text("msgId", unique_key);
        writer.text("transactionId", unique_key);
        writer.finish(0);
        Ok(())
    }
}

/// Where a half message is stored.
#[derive(Debug, PartialEq, Eq)]
struct HalfMessage {
    queue_offset: i64,
    physical_offset: i64,
}

impl HalfMessage {
    fn read(reply: &Reply<'_>) -> Result<Self, BenchError> {
        let bad = |reason: &str| BenchError::Answer { what: "a half message", reason: reason.to_owned() };
        let message_id = reply.ext_text("msgId").ok_or_else(|| bad("no msgId in it"))?;
        let physical_offset = message_id
            .len()
            .checked_sub(OFFSET_DIGITS)
            .and_then(|at| i64::from_str_radix(message_id.get(at..)?, 16).ok())
            .ok_or_else(|| bad("its msgId holds no physical offset"))?;
        let queue_offset = reply.ext_int("queueOffset").ok_or_else(|| bad("no queueOffset in it"))?;
        Ok(Self { queue_offset, physical_offset })
    }
}
