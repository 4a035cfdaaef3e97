//! The bytes of one file: what a reader sees now, and what a power cut would leave of it.

/// What a power cut does to changes that nobody made stable.
#[derive(Clone, Copy, Debug)]
pub struct Loss {
    /// Unit a torn write is cut into; a device writes one whole.
    pub sector_bytes: usize,
    /// Chance of a change to arrive whole.
    pub keep: f64,
    /// Chance of a write that does not arrive whole to arrive in part.
    pub tear: f64,
}

impl Loss {
    /// One of the ways in which devices lose their cache: all of it, nearly nothing, or a bit of everything.
    pub fn draw(rng: &mut fastrand::Rng) -> Self {
        let (keep, tear) = [(0.0, 0.0), (0.95, 0.5), (0.5, 0.5), (0.2, 1.0), (0.7, 0.2)][rng.usize(..5)];
        Self { sector_bytes: [512, 4096][rng.usize(..2)], keep, tear }
    }
}

#[derive(Clone, Debug)]
enum Change {
    Write {
        at: usize,
        data: Vec<u8>,
    },
    /// The file's length, set.
    Length(usize),
    /// The file's length, at least.
    Allocation(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The writer waits for it; a sync that comes meanwhile does not cover it.
    InFlight,
    /// In the device's cache.
    Volatile,
    Stable,
}

/// A file. Its changes since the last sync are kept in order, because a power cut decides about each of them.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// What no power cut takes away, without `changes`.
    base: Vec<u8>,
    changes: Vec<(u64, State, Change)>,
    /// `base` with all changes: what is read.
    current: Vec<u8>,
    last_change: u64,
}

impl Image {
    /// A file whose content is stable.
    pub fn stable(content: Vec<u8>) -> Self {
        Self { base: content.clone(), current: content, ..Self::default() }
    }

    pub fn content(&self) -> &[u8] {
        &self.current
    }

    /// Begins a write. It is read from now on; [`Self::complete`] ends it.
    pub fn write(&mut self, at: usize, data: &[u8]) -> u64 {
        self.change(State::InFlight, Change::Write { at, data: data.to_vec() })
    }

    /// Ends a write that `write` began. Stable: it was a synchronous one.
    pub fn complete(&mut self, change: u64, is_stable: bool) {
        if let Some((_, state, _)) = self.changes.iter_mut().rfind(|(number, ..)| *number == change) {
            *state = if is_stable { State::Stable } else { State::Volatile };
        }
        self.fold();
    }

    pub fn set_length(&mut self, length: usize) {
        self.change(State::Volatile, Change::Length(length));
    }

    pub fn allocate(&mut self, end: usize) {
        self.change(State::Volatile, Change::Allocation(end));
    }

    /// Makes everything stable that is not in flight.
    pub fn sync(&mut self) {
        for (_, state, _) in &mut self.changes {
            if *state == State::Volatile {
                *state = State::Stable;
            }
        }
        self.fold();
    }

    /// What is on the device once the power is gone. Changes arrive or do not independently of each other; of those
    /// that arrive, the later one wins.
    pub fn after_power_cut(&self, loss: Loss, rng: &mut fastrand::Rng) -> Vec<u8> {
        let mut content = self.base.clone();
        for (_, state, change) in &self.changes {
            if *state == State::Stable || rng.f64() < loss.keep {
                apply(&mut content, change);
            } else if let Change::Write { at, data } = change
                && rng.f64() < loss.tear
            {
                for (index, sector) in data.chunks(loss.sector_bytes).enumerate() {
                    if rng.bool() {
                        write(&mut content, at + index * loss.sector_bytes, sector);
                    }
                }
            }
        }
        content
    }

    fn change(&mut self, state: State, change: Change) -> u64 {
        apply(&mut self.current, &change);
        self.last_change += 1;
        self.changes.push((self.last_change, state, change));
        self.last_change
    }

    /// Moves stable changes into the base, as long as nothing that may be lost comes before them.
    fn fold(&mut self) {
        let stable = self.changes.iter().take_while(|(_, state, _)| *state == State::Stable).count();
        for (_, _, change) in self.changes.drain(..stable) {
            apply(&mut self.base, &change);
        }
    }
}

fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { at, data } => write(content, *at, data),
        Change::Length(length) => content.resize(*length, 0),
        Change::Allocation(end) => content.resize(content.len().max(*end), 0),
    }
}

fn write(content: &mut Vec<u8>, at: usize, data: &[u8]) {
    let end = at + data.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[at..end].copy_from_slice(data);
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERYTHING: Loss = Loss { sector_bytes: 512, keep: 0.0, tear: 0.0 };

    #[test]
    fn what_was_synced_survives_and_what_came_later_does_not() {
        let mut image = Image::default();
        let first = image.write(0, b"synced");
        image.complete(first, false);
        image.sync();
        let second = image.write(0, b"volatile");
        image.complete(second, false);
        let third = image.write(8, b"+");
        image.complete(third, true);
        assert_eq!(image.content(), b"volatile+");
        assert_eq!(image.after_power_cut(EVERYTHING, &mut fastrand::Rng::with_seed(1)), b"synced\0\0+");
    }

    #[test]
    fn a_sync_does_not_cover_a_write_in_flight() {
        let mut image = Image::default();
        let write = image.write(0, b"in flight");
        image.sync();
        assert_eq!(image.after_power_cut(EVERYTHING, &mut fastrand::Rng::with_seed(1)), b"");
        image.complete(write, true);
        assert_eq!(image.after_power_cut(EVERYTHING, &mut fastrand::Rng::with_seed(1)), b"in flight");
    }

    #[test]
    fn a_torn_write_arrives_in_whole_sectors() {
        let mut image = Image::stable(vec![1; 64 * 512]);
        let write = image.write(0, &[2; 64 * 512]);
        image.complete(write, false);
        let torn = Loss { tear: 1.0, ..EVERYTHING };
        let content = image.after_power_cut(torn, &mut fastrand::Rng::with_seed(7));
        let sectors: Vec<_> = content.chunks(512).collect();
        assert!(sectors.iter().all(|sector| *sector == [1; 512] || *sector == [2; 512]));
        assert!(sectors.contains(&&[1; 512][..]) && sectors.contains(&&[2; 512][..]));
    }
}
