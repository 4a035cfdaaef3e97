//! What `--verify` keeps per queue, and what it concludes.

use std::collections::{BTreeSet, HashMap};

use crate::options::Verify;
use crate::record::Record;
use crate::report::Verdict;
use crate::stamp::{self, StampError};

/// Missing sequence numbers remembered per producer; beyond it they are only counted, and one that
/// still arrives is called a duplicate.
const MISSING_MAX: usize = 1 << 20;

/// The messages of one producer connection in one queue.
#[derive(Default)]
struct ProducerCheck {
    next: u64,
    missing: BTreeSet<u64>,
    missing_forgotten: u64,
}

pub struct QueueCheck {
    verify: Verify,
    next_offset: i64,
    /// No filter: every queue offset must follow the one before.
    sees_all: bool,
    /// The queue is read from its very first message, so sequences must start at 0.
    starts_at_zero: bool,
    producers: HashMap<u64, ProducerCheck>,
    verdict: Verdict,
}

impl QueueCheck {
    pub fn new(offset: i64, sees_all: bool, verify: Verify) -> Self {
        Self {
            verify: if sees_all { verify } else { Verify::Integrity },
            next_offset: offset,
            sees_all,
            starts_at_zero: offset == 0,
            producers: HashMap::new(),
            verdict: Verdict::default(),
        }
    }

    /// The broker moved the reader: offsets start anew here, and so may sequences.
    pub fn move_to(&mut self, offset: i64) {
        self.next_offset = offset;
        self.starts_at_zero = offset == 0;
        self.producers.clear();
    }

    pub fn take(&mut self, record: &Record<'_>) {
        let follows = match self.sees_all {
            _ if self.verify == Verify::Once => true,
            true => record.queue_offset == self.next_offset,
            false => record.queue_offset >= self.next_offset,
        };
        self.verdict.offset_gaps += u64::from(!follows);
        self.next_offset = record.queue_offset + 1;
        self.verdict.checked += 1;
        if crc32fast::hash(record.body) & 0x7fff_ffff != record.body_crc {
            self.verdict.corrupt += 1;
            return;
        }
        match stamp::check(record.body) {
            Ok(_) if self.verify == Verify::Integrity => {}
            Ok(stamp) => self.take_sequence(stamp.producer, stamp.sequence),
            Err(StampError::Foreign) => self.verdict.foreign += 1,
            Err(StampError::Corrupt) => self.verdict.corrupt += 1,
        }
    }

    fn take_sequence(&mut self, producer: u64, sequence: u64) {
        let first = if self.starts_at_zero { 0 } else { sequence };
        let check =
            self.producers.entry(producer).or_insert_with(|| ProducerCheck { next: first, ..ProducerCheck::default() });
        if sequence >= check.next {
            for missing in check.next..sequence {
                if check.missing.len() == MISSING_MAX {
                    check.missing_forgotten += sequence - missing;
                    break;
                }
                check.missing.insert(missing);
            }
            check.next = sequence + 1;
        } else if check.missing.remove(&sequence) {
            self.verdict.out_of_order += u64::from(self.verify == Verify::Order);
        } else {
            self.verdict.duplicates += 1;
        }
    }

    pub fn verdict(&self) -> Verdict {
        let missing = self.producers.values().map(|check| check.missing.len() as u64 + check.missing_forgotten);
        Verdict { missing: missing.sum(), ..self.verdict }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::{BodyTemplate, Filler, Stamp};

    fn body(sequence: u64) -> Vec<u8> {
        let mut body = Vec::new();
        let stamp = Stamp { producer: 1, sequence, due_us: 0 };
        BodyTemplate::new(Filler::Sequence, 64).append_to(&mut body, stamp);
        body
    }

    fn verdict(sequences: &[u64], damage: Option<usize>) -> Verdict {
        verdict_of(Verify::Order, sequences, damage)
    }

    fn verdict_of(verify: Verify, sequences: &[u64], damage: Option<usize>) -> Verdict {
        let mut check = QueueCheck::new(0, true, verify);
        for (offset, sequence) in sequences.iter().enumerate() {
            let mut body = body(*sequence);
            if damage == Some(offset) {
                body[40] ^= 1;
            }
            check.take(&Record::of_body(offset as i64, &body));
        }
        check.verdict()
    }

    #[test]
    fn a_queue_in_order_is_clean() {
        assert!(verdict(&[0, 1, 2], None).is_clean());
    }

    #[test]
    fn late_missing_double_and_damaged_messages_are_told_apart() {
        let late = verdict(&[0, 2, 1], None);
        assert_eq!((late.out_of_order, late.missing, late.duplicates), (1, 0, 0));
        let missing = verdict(&[1, 3], None);
        assert_eq!((missing.out_of_order, missing.missing), (0, 2));
        let double = verdict(&[0, 1, 1], None);
        assert_eq!((double.duplicates, double.missing), (1, 0));
        assert_eq!(verdict(&[0, 1], Some(1)).corrupt, 1);
    }

    #[test]
    fn without_an_order_only_missing_and_double_messages_count() {
        assert!(verdict_of(Verify::Once, &[2, 0, 1], None).is_clean());
        let wrong = verdict_of(Verify::Once, &[3, 0, 1, 1], None);
        assert_eq!((wrong.missing, wrong.duplicates, wrong.out_of_order), (1, 1, 0));
    }

    #[test]
    fn offsets_must_follow_each_other() {
        let mut check = QueueCheck::new(5, true, Verify::Integrity);
        let body = body(0);
        for queue_offset in [5, 6, 8] {
            check.take(&Record::of_body(queue_offset, &body));
        }
        assert_eq!(check.verdict().offset_gaps, 1);
    }
}
