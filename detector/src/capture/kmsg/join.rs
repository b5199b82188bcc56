//! Puts the kernel's two records about a martian together.

use std::collections::VecDeque;

use super::{
    KernelMartian, MartianKind,
    record::{Caller, Line, LinkHeader, Record, parse_record},
};

/// How many martians may wait for their link headers. The kernel logs fewer at a time.
pub(super) const WAITING: usize = 16;

/// What the log says, record by record.
#[derive(Debug, Default)]
pub(super) struct Joined {
    waiting: VecDeque<Waiting>,
    done: VecDeque<KernelMartian>,
    /// The number that the next record must have; none before the first.
    expected: Option<u64>,
    /// Records were overwritten before they were read.
    overrun: bool,
    lost: u64,
}

/// A martian source whose link header has not come yet.
#[derive(Debug)]
struct Waiting {
    martian: KernelMartian,
    caller: Option<Caller>,
    /// Another waited at the same time and the kernel does not tell whose header is whose.
    is_doubtful: bool,
}

impl Joined {
    pub(super) fn next(&mut self) -> Option<KernelMartian> {
        self.done.pop_front()
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// Waits no longer for link headers.
    pub(super) fn give_up(&mut self) {
        self.done.extend(self.waiting.drain(..).map(|waiting| waiting.martian));
    }

    /// Records were overwritten; how many, the next one's number tells.
    pub(super) fn overrun(&mut self) {
        self.overrun = true;
    }

    /// Takes the next record. One that cannot be read is missed as if it were lost.
    pub(super) fn take(&mut self, record: &[u8]) {
        let Some(Record { sequence, caller, line }) = parse_record(record) else { return };
        self.count_lost(sequence);
        match line {
            Line::Martian { kind, source, target, device } => {
                let martian = KernelMartian {
                    kind,
                    source,
                    target,
                    device,
                    frame_source: None,
                    frame_destination: None,
                    ethertype: None,
                };
                self.martian(martian, caller);
            }
            Line::LinkHeader(header) => self.header(header, caller),
            Line::Other => {}
        }
    }

    fn count_lost(&mut self, sequence: u64) {
        let missing = self.expected.map_or(0, |expected| sequence.saturating_sub(expected));
        let missing = missing.max(u64::from(std::mem::take(&mut self.overrun)));
        self.expected = Some(sequence.saturating_add(1));
        self.lost = self.lost.saturating_add(missing);
        if missing > 0 {
            // A header among the lost ones would be looked for in those of others.
            self.give_up();
        }
    }

    fn martian(&mut self, martian: KernelMartian, caller: Option<Caller>) {
        if martian.kind == MartianKind::Destination {
            return self.done.push_back(martian);
        }
        // Who logs the next one has logged all that it had to say about the last.
        if caller.is_some() {
            self.release(|waiting| waiting.caller == caller);
        }
        let is_doubtful = caller.is_none() && self.is_waiting();
        for waiting in &mut self.waiting {
            waiting.is_doubtful |= is_doubtful;
        }
        self.waiting.push_back(Waiting { martian, caller, is_doubtful });
        if self.waiting.len() > WAITING {
            self.release(|_| true);
        }
    }

    fn header(&mut self, header: LinkHeader, caller: Option<Caller>) {
        let Some(at) = self.waiting.iter().position(|waiting| waiting.caller == caller) else { return };
        let Some(Waiting { mut martian, is_doubtful, .. }) = self.waiting.remove(at) else { return };
        if let Some(header) = header.filter(|_| !is_doubtful) {
            martian.frame_source = Some(header.source);
            martian.frame_destination = Some(header.destination);
            martian.ethertype = Some(header.ethertype);
        }
        self.done.push_back(martian);
    }

    /// Lets the first for which `which` holds go without its header.
    fn release(&mut self, which: impl Fn(&Waiting) -> bool) {
        let at = self.waiting.iter().position(which);
        self.done.extend(at.and_then(|at| self.waiting.remove(at)).map(|waiting| waiting.martian));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::net::Mac;

    /// Takes records with running numbers; each is who logged it, and the line.
    fn take(records: &[(&str, String)]) -> Joined {
        let mut joined = Joined::default();
        for (number, (caller, line)) in records.iter().enumerate() {
            joined.take(format!("4,{number},7,-{caller};{line}\n").as_bytes());
        }
        joined
    }

    fn source(last: u8) -> String {
        format!("IPv4: martian source 10.8.64.1 from 10.8.64.{last}, on dev eth0")
    }

    fn header(last: u8) -> String {
        format!("ll header: 00000000: ff ff ff ff ff ff 02 00 00 00 00 {last:02x} 08 06")
    }

    /// The last bytes of each martian's source and frame source, in order.
    fn martians(joined: &mut Joined) -> Vec<(u8, Option<u8>)> {
        std::iter::from_fn(|| joined.next())
            .map(|martian| (martian.source.octets()[3], martian.frame_source.map(|mac| mac.0[5])))
            .collect()
    }

    #[test]
    fn two_records_are_one_martian_whatever_comes_between() {
        let mut joined = take(&[("", source(2)), ("", "eth0: renamed".into()), ("", header(2))]);
        let martian = joined.next().unwrap();
        assert_eq!(martian.frame_source, Some(Mac([2, 0, 0, 0, 0, 2])));
        assert_eq!((martian.frame_destination, martian.is_arp()), (Some(Mac::BROADCAST), true));
        assert!(!joined.is_waiting());
        assert_eq!((joined.next(), joined.lost()), (None, 0));
    }

    #[test]
    fn callers_tell_whose_header_it_is() {
        let (one, two) = (",caller=C0", ",caller=T9");
        let mut joined = take(&[(one, source(1)), (two, source(2)), (two, header(2)), (one, header(1))]);
        assert_eq!(martians(&mut joined), [(2, Some(2)), (1, Some(1))]);
        let mut joined = take(&[(one, source(1)), (one, source(2)), (two, header(9)), (one, header(2))]);
        assert_eq!(martians(&mut joined), [(1, None), (2, Some(2))]);
    }

    #[test]
    fn a_header_that_could_be_anothers_is_nobodys() {
        let mut joined = take(&[("", source(1)), ("", source(2)), ("", header(2)), ("", source(3)), ("", header(3))]);
        assert_eq!(martians(&mut joined), [(1, None), (2, None)]);
        joined.take(format!("4,5,7,-;{}\n", header(1)).as_bytes());
        assert_eq!(martians(&mut joined), [(3, None)]);
        joined.take(format!("4,6,7,-;{}\n", source(4)).as_bytes());
        joined.take(format!("4,7,7,-;{}\n", header(4)).as_bytes());
        assert_eq!(martians(&mut joined), [(4, Some(4))]);
    }

    #[test]
    fn a_martian_without_a_header_is_told_of_in_the_end() {
        let mut joined = take(&[("", source(1))]);
        assert_eq!((joined.next(), joined.is_waiting()), (None, true));
        joined.give_up();
        assert_eq!(martians(&mut joined), [(1, None)]);
        joined.take(format!("4,1,7,-;{}\n", header(1)).as_bytes());
        assert_eq!(martians(&mut joined), []);
        let destination = "IPv4: martian destination 10.8.64.1 from 10.8.64.2, dev eth0".to_owned();
        let mut joined = take(&[("", destination)]);
        assert_eq!(joined.next().map(|martian| martian.kind), Some(MartianKind::Destination));
    }

    #[test]
    fn what_is_lost_is_counted_and_no_header_jumps_over_it() {
        let mut joined = take(&[("", source(1))]);
        joined.take(format!("4,4,7,-;{}\n", header(2)).as_bytes());
        assert_eq!((martians(&mut joined), joined.lost()), (vec![(1, None)], 3));
        // The first record after an overrun that came before any record.
        let mut joined = Joined::default();
        joined.overrun();
        joined.take(format!("4,9,7,-;{}\n", source(1)).as_bytes());
        assert_eq!(joined.lost(), 1);
        // One that cannot be read is found out by the next.
        joined.take(b"what is this");
        joined.take(b"4,11,7,-;x\n");
        assert_eq!(joined.lost(), 2);
    }

    proptest! {
        #[test]
        fn every_martian_comes_out_once_and_memory_is_bounded(
            records in proptest::collection::vec((0u8..4, any::<bool>(), any::<bool>()), 0..100)
        ) {
            let caller = |of: u8| if of == 0 { String::new() } else { format!(",caller=C{of}") };
            let mut joined = Joined::default();
            let mut written = 0;
            for (number, (of, is_source, skip)) in records.iter().enumerate() {
                let line = if *is_source { source(*of) } else { header(*of) };
                let number = 2 * number + usize::from(*skip);
                written += usize::from(*is_source);
                joined.take(format!("4,{number},7,-{};{line}\n", caller(*of)).as_bytes());
                prop_assert!(joined.waiting.len() <= WAITING);
            }
            joined.give_up();
            prop_assert_eq!(std::iter::from_fn(|| joined.next()).count(), written);
        }
    }
}
