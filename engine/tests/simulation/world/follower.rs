//! A follower: an empty shard that is sent another one's batches, byte for byte, as replication will send them.

use std::collections::BTreeSet;

use rmq_engine::{LogPosition, Shard};

use super::World;
use super::experiments::{Batch, batches_of};
use crate::disk::Disk;
use crate::model::State;

impl World {
    /// Sends the log to an empty follower. Wherever that is cut off, it must hold what the log up to there adds up to,
    /// and in the end the same as this shard.
    pub(super) fn check_follower(&mut self, log_end: u64) {
        if !self.has_followers || self.shard.log_start() > LogPosition::new(0) {
            return;
        }
        let mut follower = Disk::new(self.geometry.segment_bytes);
        let mut end = 0;
        for batch in batches_of(&self.disk, self.geometry, log_end) {
            let (start, len) = (batch.start(), batch.header.total_bytes as usize);
            let bytes = &self.disk.log_at(start)[..len];
            // The follower's disk is full of zeros: those at the end need not be sent.
            let needed = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0);
            let sent = self.random.below(needed + 1);
            follower.receive(start, &bytes[..sent]);
            self.check_followed(&mut follower, end);
            let bytes = &self.disk.log_at(start)[..len];
            follower.receive(start, bytes);
            end = batch.end();
            self.check_followed(&mut follower, end);
            self.summary.follower_cuts += 2;
        }
        let (shard, _) = self.recover_copy(&mut follower).expect("the same log");
        assert_eq!(shard.state_digest(), self.shard.state_digest(), "the same log adds up to the same state");
        for batch in batches_of(&follower, self.geometry, log_end) {
            let len = batch.header.total_bytes as usize;
            assert_eq!(follower.log_at(batch.start())[..len], self.disk.log_at(batch.start())[..len]);
        }
    }

    fn check_followed(&mut self, follower: &mut Disk, end: u64) {
        let (shard, recovered) = self.recover_copy(follower).expect("a log that was cut off");
        assert_eq!(recovered.end.bytes(), end, "a follower's log ends with the last whole batch it got");
        let kept = self.history.partition_point(|appended| appended.end <= end);
        check_state(&shard, &State::of(&self.history[..kept]));
    }

    /// A follower that had everything before the last crash but one, also what that crash took: the epochs of the
    /// batches must tell how far both logs are the same. Cut off there, it can be sent the rest.
    pub(super) fn check_diverged_follower(&mut self, log_end: u64) {
        if !self.has_followers || self.shard.log_start() > LogPosition::new(0) {
            return;
        }
        let Some(mut follower) = self.before_crash.take() else { return };
        let (_, recovered) = self.recover_copy(&mut follower).expect("a log that was alive");
        let theirs = batches_of(&follower, self.geometry, recovered.end.bytes());
        let ours = batches_of(&self.disk, self.geometry, log_end);
        let same = ours.iter().zip(&theirs).take_while(|(our, their)| our == their).count();
        let same_end = same.checked_sub(1).map_or(0, |last| ours[last].end());
        assert_eq!(common_end(&ours, &theirs), same_end, "where the logs part, by epochs and by bytes");
        self.summary.followers_diverged += u64::from(same < theirs.len());
        follower.cut(same_end);
        for batch in &ours[same..] {
            follower.receive(batch.start(), &self.disk.log_at(batch.start())[..batch.header.total_bytes as usize]);
        }
        let (shard, again) = self.recover_copy(&mut follower).expect("the same log");
        assert_eq!((again.end.bytes(), shard.state_digest()), (log_end, self.shard.state_digest()));
    }
}

/// How far two logs are the same, told by the epochs of their batches alone: to where the first of them ends the newest
/// epoch that both have.
fn common_end(ours: &[Batch], theirs: &[Batch]) -> u64 {
    let epochs = |batches: &[Batch]| -> BTreeSet<u64> { batches.iter().map(|batch| batch.header.epoch).collect() };
    let common = epochs(ours).intersection(&epochs(theirs)).max().copied();
    let end_of = |batches: &[Batch], epoch| batches.iter().rfind(|batch| batch.header.epoch == epoch).map(Batch::end);
    common.and_then(|epoch| end_of(ours, epoch).min(end_of(theirs, epoch))).unwrap_or(0)
}

fn check_state(shard: &Shard, expected: &State) {
    let mut queues: Vec<_> = shard.all_queues().map(|(topic, id, bounds)| (topic, id, bounds.max)).collect();
    queues.sort_unstable();
    let mut sent: Vec<_> = expected.queues.iter().map(|((topic, id), sent)| (*topic, *id, sent.len() as i64)).collect();
    sent.sort_unstable();
    assert_eq!(queues, sent);
    let mut offsets: Vec<_> = shard.offsets().collect();
    offsets.sort_unstable();
    let committed = expected.offsets.iter().map(|((group, topic, id), offset)| (*group, *topic, *id, *offset));
    assert!(offsets.into_iter().eq(committed));
    for kind in 0..2 {
        let settings = expected.settings.iter().filter(|((of, _), _)| *of == kind);
        assert!(shard.settings(kind).eq(settings.map(|((_, key), value)| (*key, value.as_slice()))));
    }
}
