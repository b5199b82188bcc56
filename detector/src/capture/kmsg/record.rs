//! One record of `/dev/kmsg` (`Documentation/ABI/testing/dev-kmsg`), read strictly.
//!
//! `4,1234,987654321,-;IPv4: martian source …`: priority, sequence number, microseconds, flags, and since Linux 5.1 perhaps
//! more fields (`caller=T71`); then the line, with everything that is no printable ASCII escaped as `\x2d`; then lines with
//! properties.

use std::net::Ipv4Addr;

use super::MartianKind;
use crate::net::Mac;

/// A record, as far as martians go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its number; every record of the log has the next one.
    pub sequence: u64,
    /// Who logged it, where the kernel tells (`CONFIG_PRINTK_CALLER`).
    pub caller: Option<Caller>,
    /// What it says.
    pub line: Line,
}

/// Who logged a record: a task, or a processor in an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// The task with this number.
    Task(u32),
    /// The processor with this number.
    Processor(u32),
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// The kernel took a packet for a martian.
    Martian {
        /// Which address it took offence at.
        kind: MartianKind,
        /// Who sent the packet.
        source: Ipv4Addr,
        /// Whom it was for.
        target: Ipv4Addr,
        /// The interface that it came in by.
        device: String,
    },
    /// The frame that the last martian source came in.
    LinkHeader(LinkHeader),
    /// Anything else, and whatever user space wrote.
    Other,
}

/// The first 14 bytes of a frame; nothing where the link has shorter headers, and so is no Ethernet.
pub type LinkHeader = Option<EthernetHeader>;

/// An Ethernet header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EthernetHeader {
    /// Whom the frame is for.
    pub destination: Mac,
    /// Who sent it.
    pub source: Mac,
    /// Its type, in host byte order.
    pub ethertype: u16,
}

/// Reads a record; `None` if it is not of the kernel's form.
///
/// Only what the kernel wrote is more than [`Line::Other`]: a record that user space wrote never has facility 0
/// (`devkmsg_write` in `kernel/printk/printk.c`), and what stands in the middle of a line is not looked for.
#[must_use]
pub fn parse_record(record: &[u8]) -> Option<Record> {
    let end = record.iter().position(|byte| *byte == b'\n').unwrap_or(record.len());
    let text = str::from_utf8(record.get(..end)?).ok()?;
    let (prefix, line) = text.split_once(';')?;
    let mut fields = prefix.split(',');
    let priority: u32 = number(fields.next()?)?;
    let sequence = number(fields.next()?)?;
    let _microseconds: u64 = number(fields.next()?)?;
    let is_fragment = fields.next()? != "-";
    let caller = fields.find_map(|field| Caller::of(field.strip_prefix("caller=")?));
    // The lowest three bits are the level, the others the facility (`LOG_FACILITY` in `include/linux/printk.h`).
    let is_kernels = priority >> 3 == 0;
    let line = if is_kernels && !is_fragment { Line::of(line) } else { Line::Other };
    Some(Record { sequence, caller, line })
}

/// Digits alone: `parse` would take a sign too.
fn number<N: std::str::FromStr>(text: &str) -> Option<N> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

impl Caller {
    fn of(text: &str) -> Option<Self> {
        match text.split_at_checked(1)? {
            ("T", task) => number(task).map(Self::Task),
            ("C", processor) => number(processor).map(Self::Processor),
            _ => None,
        }
    }
}

impl Line {
    fn of(text: &str) -> Self {
        martian(text).or_else(|| link_header(text)).unwrap_or(Self::Other)
    }
}

fn martian(text: &str) -> Option<Line> {
    let text = text.strip_prefix("IPv4: martian ")?;
    let (kind, on) = match text.split_once(' ')? {
        ("source", _) => (MartianKind::Source, ", on dev "),
        ("destination", _) => (MartianKind::Destination, ", dev "),
        _ => return None,
    };
    let (_, text) = text.split_once(' ')?;
    let (source, target, device) = by_name(text).or_else(|| by_place(text, on))?;
    Some(Line::Martian { kind, source: source.parse().ok()?, target: target.parse().ok()?, device: unescaped(device)? })
}

/// `TARGET from SOURCE, on dev DEVICE`: the target comes first, whatever the words suggest.
fn by_place<'a>(text: &'a str, on: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let (target, rest) = text.split_once(" from ")?;
    let (source, device) = rest.split_once(on)?;
    Some((source, target, device))
}

/// `(src=SOURCE, dst=TARGET, dev=DEVICE)`, as kernel developers were asked in January 2026 to write it from now on.
fn by_name(text: &str) -> Option<(&str, &str, &str)> {
    let (source, rest) = text.strip_prefix("(src=")?.strip_suffix(')')?.split_once(", dst=")?;
    let (target, device) = rest.split_once(", dev=")?;
    Some((source, target, device))
}

/// `ll header: 00000000: ff ff …`, sixteen bytes a line (`print_hex_dump` in `lib/hexdump.c`); what follows in further
/// lines is no part of an Ethernet header.
fn link_header(text: &str) -> Option<Line> {
    let bytes = text.strip_prefix("ll header: 00000000: ")?;
    let bytes: Vec<u8> = bytes.trim_end_matches(' ').split(' ').map(byte).collect::<Option<_>>()?;
    Some(Line::LinkHeader(ethernet(&bytes)))
}

fn ethernet(bytes: &[u8]) -> LinkHeader {
    let (destination, rest) = bytes.split_first_chunk()?;
    let (source, rest) = rest.split_first_chunk()?;
    let ethertype = u16::from_be_bytes(*rest.first_chunk()?);
    Some(EthernetHeader { destination: Mac(*destination), source: Mac(*source), ethertype })
}

fn byte(text: &str) -> Option<u8> {
    let is_byte = text.len() == 2 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_byte.then(|| u8::from_str_radix(text, 16).ok()).flatten()
}

/// An interface's name, as it was before the kernel escaped it: 1 to 15 bytes.
fn unescaped(text: &str) -> Option<String> {
    let mut name = Vec::new();
    let mut rest = text;
    while let Some((first, after)) = rest.split_at_checked(1) {
        let (is, after) = match first {
            "\\" => (byte(after.strip_prefix('x')?.get(..2)?)?, after.get(3..)?),
            _ => (*first.as_bytes().first()?, after),
        };
        name.push(is);
        rest = after;
    }
    (rest.is_empty() && (1..=15).contains(&name.len())).then(|| String::from_utf8_lossy(&name).into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SOURCE: &str = "4,339,5140900900,-,caller=C0;IPv4: martian source 10.8.64.1 from 10.8.64.2, on dev eth0\n";
    const HEADER: &str = "4,340,5140900903,-;ll header: 00000000: ff ff ff ff ff ff ee 45 b1 fe 2d db 08 06\n";

    fn line(record: &str) -> Line {
        parse_record(record.as_bytes()).unwrap().line
    }

    fn martian(kind: MartianKind, device: &str) -> Line {
        let (source, target) = (Ipv4Addr::new(10, 8, 64, 2), Ipv4Addr::new(10, 8, 64, 1));
        Line::Martian { kind, source, target, device: device.to_owned() }
    }

    #[test]
    fn the_kernels_two_lines_are_read() {
        let record = parse_record(SOURCE.as_bytes()).unwrap();
        assert_eq!((record.sequence, record.caller), (339, Some(Caller::Processor(0))));
        assert_eq!(record.line, martian(MartianKind::Source, "eth0"));
        let record = parse_record(HEADER.as_bytes()).unwrap();
        assert_eq!((record.sequence, record.caller), (340, None));
        let ethernet = EthernetHeader {
            destination: Mac::BROADCAST,
            source: Mac([0xee, 0x45, 0xb1, 0xfe, 0x2d, 0xdb]),
            ethertype: 0x0806,
        };
        assert_eq!(record.line, Line::LinkHeader(Some(ethernet)));
        let longer = HEADER.replace("08 06", "08 06 00 01 ");
        assert_eq!(line(&longer), Line::LinkHeader(Some(ethernet)));
    }

    #[test]
    fn the_other_wordings_are_read() {
        let destination = "4,7,1,-;IPv4: martian destination 10.8.64.1 from 10.8.64.2, dev eth0\n";
        assert_eq!(line(destination), martian(MartianKind::Destination, "eth0"));
        let by_name = "4,7,1,-;IPv4: martian source (src=10.8.64.2, dst=10.8.64.1, dev=a)b)\n";
        assert_eq!(line(by_name), martian(MartianKind::Source, "a)b"));
        let with_properties = format!("{SOURCE} SUBSYSTEM=net\n DEVICE=n4\n");
        assert_eq!(line(&with_properties), martian(MartianKind::Source, "eth0"));
    }

    #[test]
    fn a_device_is_called_what_it_was_called_before_it_was_escaped() {
        let of = |name: &str| line(&SOURCE.replace("eth0", name));
        assert_eq!(of("\\xc3\\xbc\\x5c"), martian(MartianKind::Source, "ü\\"));
        assert_eq!(of(", on dev x"), martian(MartianKind::Source, ", on dev x"));
        assert_eq!(of("\\xff"), martian(MartianKind::Source, "\u{fffd}"));
        for wrong in ["", "\\", "\\x4", "\\xzz", "sixteen-letters-"] {
            assert_eq!(of(wrong), Line::Other, "{wrong:?}");
        }
    }

    #[test]
    fn what_user_space_writes_is_no_martian() {
        for priority in [12, 8, 36, 1 << 20] {
            let record = SOURCE.replacen('4', &priority.to_string(), 1);
            assert_eq!(line(&record), Line::Other, "{priority}");
            assert_eq!(line(&HEADER.replacen('4', &priority.to_string(), 1)), Line::Other, "{priority}");
        }
        assert_eq!(line(&SOURCE.replacen(",-,", ",c,", 1)), Line::Other);
        assert_eq!(
            line("6,8,1,-;veth1: renamed from IPv4: martian source 10.8.64.1 from 10.8.64.2, on dev a\n"),
            Line::Other
        );
    }

    #[test]
    fn a_line_that_is_not_quite_so_is_another() {
        for wrong in [
            SOURCE.replace("10.8.64.1", "10.8.64.256"),
            SOURCE.replace("10.8.64.1", "10.8.64"),
            SOURCE.replace(", on dev", ", dev"),
            SOURCE.replace("IPv4: ", ""),
            SOURCE.replace("source", "sauce"),
            HEADER.replace("ll header: 00000000", "ll header: 00000010"),
            HEADER.replace("ee 45", "ee  45"),
            HEADER.replace("ee 45", "ee +5"),
        ] {
            assert_eq!(line(&wrong), Line::Other, "{wrong}");
        }
        let short = HEADER.replace(" 08 06", " 08");
        assert_eq!(line(&short), Line::LinkHeader(None));
    }

    #[test]
    fn what_is_no_record_is_none() {
        for wrong in [
            "",
            ";",
            "4;x",
            "4,1,2;x",
            "4,1,2,-",
            "+4,1,2,-;x",
            "4,-1,2,-;x",
            "4,1,,-;x",
            "4,99999999999999999999,1,-;x",
        ] {
            assert_eq!(parse_record(wrong.as_bytes()), None, "{wrong:?}");
        }
        assert_eq!(parse_record(b"4,1,2,-;\xff\n"), None);
    }

    fn escaped(name: &str) -> String {
        let plain = |byte: u8| (b' '..127).contains(&byte) && byte != b'\\';
        name.bytes()
            .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("\\x{byte:02x}") })
            .collect()
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_odd(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_record(&bytes);
        }

        #[test]
        fn no_tail_is_too_odd(tail in ".{0,60}", cut in 0usize..90) {
            for record in [SOURCE, HEADER] {
                let head: String = record.chars().take(cut).collect();
                let _ = parse_record(format!("{head}{tail}").as_bytes());
            }
        }

        #[test]
        fn what_the_kernel_writes_is_read_back(
            source in any::<u32>(),
            target in any::<u32>(),
            device in "[^/:\\s\\pC]{1,5}".prop_filter("a name", |name| name.len() <= 15),
        ) {
            let (source, target) = (Ipv4Addr::from(source), Ipv4Addr::from(target));
            let record = format!("4,1,2,-;IPv4: martian source {target} from {source}, on dev {}\n", escaped(&device));
            prop_assert_eq!(line(&record), Line::Martian { kind: MartianKind::Source, source, target, device });
        }
    }
}
