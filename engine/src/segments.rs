//! Which segment files are there, which are being made, and which could not be made.

use crate::config::PREPARE_RETRY_MS;
use crate::storage::StorageError;

#[derive(Clone, Copy, Debug)]
enum State {
    Ready,
    Wanted,
    Preparing,
    Failed { error: StorageError, at_ms: i64 },
}

/// The segments the log will be written to. Few: the current one and the next.
#[derive(Default)]
pub(crate) struct Segments {
    states: Vec<(u64, State)>,
}

impl Segments {
    pub fn with_ready(starts: impl Iterator<Item = u64>) -> Self {
        Self { states: starts.map(|start| (start, State::Ready)).collect() }
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
