//! Which segment files are there, which are being made, and which could not be made.

use std::collections::VecDeque;

use crate::config::PREPARE_RETRY_MS;
use crate::storage::StorageError;

#[derive(Clone, Copy, Debug)]
enum State {
    Ready,
    Wanted,
    Preparing,
    Failed { error: StorageError, at_ms: i64 },
}

/// Retired segments kept to be used again; more are removed.
const SPARE_SEGMENTS: usize = 1;

/// The segments the log will be written to. Few: the current one and the next. And those it let go of, whose files
/// are still there.
#[derive(Default)]
pub(crate) struct Segments {
    states: Vec<(u64, State)>,
    /// Oldest first.
    retired: VecDeque<u64>,
    /// A retired file is being renamed or removed. One at a time and in order, so that a crash never leaves an older
    /// segment when a later one is gone.
    is_taking_retired: bool,
}

impl Segments {
    pub fn with_ready(starts: impl Iterator<Item = u64>) -> Self {
        Self { states: starts.map(|start| (start, State::Ready)).collect(), ..Self::default() }
    }

    fn state(&mut self, start: u64) -> Option<&mut State> {
        self.states.iter_mut().find(|(at, _)| *at == start).map(|(_, state)| state)
    }

    pub fn is_ready(&self, start: u64) -> bool {
        self.states.iter().any(|(at, state)| *at == start && matches!(state, State::Ready))
    }

    /// Why the segment cannot be had, if preparing it failed.
    pub fn failure(&self, start: u64) -> Option<StorageError> {
        self.states.iter().find_map(|(at, state)| match state {
            State::Failed { error, .. } if *at == start => Some(*error),
            _ => None,
        })
    }

    /// Asks for the segment, unless it is there or asked for already.
    pub fn want(&mut self, start: u64) {
        if self.state(start).is_none() {
            self.states.push((start, State::Wanted));
        }
    }

    /// The log does not need the segment any more.
    pub fn retire(&mut self, start: u64) {
        self.retired.push_back(start);
    }

    /// A retired file to be used again; [`Self::on_retired_taken`] must follow.
    pub fn take_retired(&mut self) -> Option<u64> {
        if self.is_taking_retired {
            return None;
        }
        let start = self.retired.pop_front()?;
        self.is_taking_retired = true;
        Some(start)
    }

    /// A retired file to be removed, if there are more than are kept; [`Self::on_retired_taken`] must follow.
    pub fn next_to_remove(&mut self) -> Option<u64> {
        if self.retired.len() > SPARE_SEGMENTS { self.take_retired() } else { None }
    }

    /// Takes the result of what [`Self::take_retired`] was for. After a failure nothing is taken any more until the
    /// next start: to pass over one would leave a gap.
    pub fn on_retired_taken(&mut self, start: u64, is_ok: bool) {
        if is_ok {
            self.is_taking_retired = false;
        } else {
            self.retired.push_front(start);
        }
    }

    /// The next segment to ask the storage for: one at a time and in order, so that a crash never leaves a later
    /// segment without the one before it.
    pub fn next_to_prepare(&mut self, now_ms: i64) -> Option<u64> {
        let missing = self.states.iter_mut().filter(|(_, state)| !matches!(state, State::Ready));
        let (start, state) = missing.min_by_key(|(start, _)| *start)?;
        match state {
            // A clock that was set back must not make the wait longer.
            State::Failed { at_ms, .. } if (*at_ms..*at_ms + PREPARE_RETRY_MS).contains(&now_ms) => return None,
            State::Ready | State::Preparing => return None,
            State::Wanted | State::Failed { .. } => *state = State::Preparing,
        }
        Some(*start)
    }

    pub fn on_prepared(&mut self, start: u64, result: Result<(), StorageError>, now_ms: i64) {
        let Some(state) = self.state(start) else {
            return;
        };
        *state = match result {
            Ok(()) => State::Ready,
            Err(error) => State::Failed { error, at_ms: now_ms },
        };
    }

    /// Forgets segments that end at or before `position`: they are not written any more.
    pub fn forget_before(&mut self, position: u64, segment_bytes: u64) {
        self.states.retain(|(start, state)| position < start + segment_bytes || !matches!(state, State::Ready));
    }
}
