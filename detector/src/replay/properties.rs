//! What holds of a replay, whatever the files are.

use std::io::Cursor;

use super::{Merged, Recording, Replay, Settings, Source};
use crate::{
    engine::{Finding, Policy},
    time::Timestamp,
};

/// Of a file: it is refused or comes to an end, time does not go back, and nothing is counted twice.
pub fn capture_file(bytes: &[u8]) {
    replayed(vec![("a.pcap", bytes.to_vec())]);
}

/// The same of several files, each with its name as the command line takes it.
pub(super) fn replayed(files: Vec<(&str, Vec<u8>)>) {
    let recordings: Vec<_> = files.into_iter().filter_map(|(name, bytes)| recording(name, bytes)).collect();
    let Some(settings) = settings() else { return };
    let (mut merged, mut replay, mut last) = (Merged::new(recordings), Replay::new(settings), Timestamp::default());
    let mut tell = |at: Timestamp, _: &Finding| {
        assert!(at >= last, "time goes back");
        last = at;
    };
    while replay.step(&mut merged, &mut tell) {}
    let summary = replay.summary();
    assert!(summary.copies + summary.unplaced <= summary.frames);
    let (len, read) = merged.progress();
    assert!(read <= len);
}

fn recording(name: &str, bytes: Vec<u8>) -> Option<Recording> {
    let (source, len): (Source, u64) = (name.parse().ok()?, bytes.len() as u64);
    Recording::read(source, Cursor::new(bytes), len).ok()
}

fn settings() -> Option<Settings> {
    let networks = vec!["10.8.64.1/24".parse().ok()?];
    Some(Settings { bridge: "rt0".parse().ok()?, networks, host: None, policy: Policy::default(), leases: Vec::new() })
}
