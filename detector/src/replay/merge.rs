//! Several recordings, in the order of time.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use super::{
    error::Flaw,
    recording::{Frame, Recording},
};
use crate::time::Timestamp;

/// Recordings that are read side by side, a frame of each at a time.
pub struct Merged {
    recordings: Vec<Recording>,
    /// The time of each recording's next frame, and its place in the list: of one time, the first in the list is first.
    heads: BinaryHeap<Reverse<(Timestamp, usize)>>,
    waiting: BTreeMap<usize, Frame>,
    flaws: Vec<(usize, Flaw)>,
}

impl Merged {
    /// The frames of `recordings`.
    #[must_use]
    pub fn new(recordings: Vec<Recording>) -> Self {
        let count = recordings.len();
        let mut merged = Self { recordings, heads: BinaryHeap::new(), waiting: BTreeMap::new(), flaws: Vec::new() };
        for number in 0..count {
            merged.advance(number);
        }
        merged
    }

    /// The recordings.
    #[must_use]
    pub fn recordings(&self) -> &[Recording] {
        &self.recordings
    }

    /// What is wrong with which of the recordings, as far as they have been read.
    pub fn flaws(&self) -> impl Iterator<Item = (&Recording, Flaw)> {
        self.flaws.iter().filter_map(|(number, flaw)| Some((self.recordings.get(*number)?, *flaw)))
    }

    /// How many bytes there are, and how many have been read.
    #[must_use]
    pub fn progress(&self) -> (u64, u64) {
        let all = self.recordings.iter().map(Recording::progress);
        all.fold((0, 0), |(len, read), (more_len, more_read)| (len + more_len, read + more_read))
    }

    /// The next frame, with the place of its recording in the list. A recording that is not in order itself gives its
    /// frames as they stand.
    pub(super) fn next(&mut self) -> Option<(usize, Frame)> {
        let Reverse((_, number)) = self.heads.pop()?;
        let frame = self.waiting.remove(&number)?;
        self.advance(number);
        Some((number, frame))
    }

    fn advance(&mut self, number: usize) {
        let Some(recording) = self.recordings.get_mut(number) else { return };
        match recording.next() {
            Ok(Some(frame)) => {
                self.heads.push(Reverse((frame.at, number)));
                self.waiting.insert(number, frame);
            }
            Ok(None) => {}
            Err(flaw) => self.flaws.push((number, flaw)),
        }
    }
}
