//! Headers about transactions.
#![forbid(unsafe_code)]

use super::headers;
use crate::text::Text;

headers! {
    /// END_TRANSACTION (37). Stock clients send it oneway.
    EndTransactionHeader<'a> {
        producer_group: required Text<'a> = "producerGroup";
        /// Offset of the half message in its queue.
        tran_state_table_offset: required i64 = "tranStateTableOffset";
        /// Physical offset of the half message, in wire form.
        commit_log_offset: required i64 = "commitLogOffset";
        /// The transaction bits of a `sysFlag`: commit, rollback, or 0 for "not known yet".
        commit_or_rollback: required i32 = "commitOrRollback";
        /// Whether it answers CHECK_TRANSACTION_STATE.
        from_transaction_check: default bool = "fromTransactionCheck", false;
    }

    /// CHECK_TRANSACTION_STATE (39), from the broker to a producer. The offsets are those END_TRANSACTION is to name.
    CheckTransactionHeader<'a> {
        topic: required Text<'a> = "topic";
        tran_state_table_offset: required i64 = "tranStateTableOffset";
        commit_log_offset: required i64 = "commitLogOffset";
        msg_id: optional Text<'a> = "msgId";
        transaction_id: optional Text<'a> = "transactionId";
        offset_msg_id: required Text<'a> = "offsetMsgId";
        broker_name: required Text<'a> = "bname";
    }

    /// RESUME_CHECK_HALF_MESSAGE (323).
    ResumeCheckHeader<'a> {
        /// Offset message id.
        msg_id: optional Text<'a> = "msgId";
    }
}
