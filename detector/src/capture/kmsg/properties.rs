//! What holds of the kernel's log, whatever stands in it.

use super::{
    join::{Joined, WAITING},
    record::{Line, parse_record},
};

/// Of a log, a record for each line: every martian in it comes out once, none has waited with too many others, and what
/// is lost is never found again.
pub fn kernel_log(bytes: &[u8]) {
    let (mut joined, mut logged, mut told) = (Joined::default(), 0, 0);
    for record in bytes.split_inclusive(|byte| *byte == b'\n') {
        logged += usize::from(is_martian(record));
        let lost = joined.lost();
        joined.take(record);
        assert!(joined.lost() >= lost);
        told += std::iter::from_fn(|| joined.next()).count();
        assert!(logged - told <= WAITING);
    }
    joined.give_up();
    assert_eq!(logged, told + std::iter::from_fn(|| joined.next()).count());
}

fn is_martian(record: &[u8]) -> bool {
    match parse_record(record).map(|record| record.line) {
        Some(Line::Martian { device, .. }) => {
            // A byte that is no UTF-8 is replaced by a character.
            assert!((1..=15).contains(&device.chars().count()), "{device:?}");
            true
        }
        _ => false,
    }
}
