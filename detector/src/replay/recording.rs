//! One recorded file, read a frame at a time.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    str::FromStr,
};

use pcap_parser::{
    Block, InterfaceDescriptionBlock, LegacyPcapBlock, PcapBlockOwned, PcapError, create_reader,
    traits::{PcapNGPacketBlock as _, PcapReaderIterator},
};

use super::{
    error::{Flaw, Unreadable},
    link::{Bare, Direction, Head, Link},
};
use crate::time::Timestamp;

/// What is read at once, in bytes.
const BUFFER: usize = 64 << 10;
/// The largest block that is believed, in bytes; `tcpdump` cuts frames to 256 KiB.
pub(super) const LARGEST_BLOCK: usize = 16 << 20;
/// The most interfaces that a file is believed to describe.
const MOST_INTERFACES: usize = 4096;
/// Microseconds: what a pcapng interface counts in unless it says otherwise.
const MICROSECONDS: u8 = 6;
/// In the year 2262. Later than that is damage, and would leave no room for what is due some time after.
const LATEST: Timestamp = Timestamp::from_nanos(u64::MAX / 2);
const SECOND: u128 = 1_000_000_000;

/// A file to replay, with the name of the port that it was recorded at, if that is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The port, or who is behind it.
    pub name: Option<String>,
    /// The file.
    pub path: PathBuf,
}

/// Where within a file a frame was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// The file does not tell interfaces apart.
    Anywhere,
    /// At the interface of this number, among those that it describes.
    Described(usize),
    /// At the interface of this index on the host.
    Index(u32),
}

/// A recorded frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) at: Timestamp,
    pub(super) place: Place,
    pub(super) direction: Option<Direction>,
    pub(super) head: Head,
}

/// A file that is being read.
pub struct Recording {
    source: Source,
    blocks: Box<dyn PcapReaderIterator + Send>,
    format: Format,
    len: u64,
}

/// What blocks mean, as far as those before them have said.
#[derive(Debug)]
struct Format {
    /// The link type and whether it counts nanoseconds, of a pcap file.
    legacy: Option<(Link, bool)>,
    big_endian: bool,
    /// The interfaces of the section.
    interfaces: Vec<Interface>,
    /// What interfaces are called, in whatever section.
    names: Vec<String>,
    /// When the last frame was recorded.
    last: Timestamp,
    /// Frames that are not Ethernet.
    foreign: u64,
}

/// An interface, as a pcapng file describes it.
#[derive(Clone, Copy, Debug)]
struct Interface {
    name: usize,
    /// How its frames stand in the file; `None` if not as Ethernet.
    link: Option<Link>,
    /// What a second has of what it counts.
    ticks: u128,
    /// What is to be added to its times, in seconds.
    offset: i64,
}

/// What comes next.
enum Next {
    Block(usize, Option<Frame>),
    More,
    Room,
    End,
    Flaw(Flaw),
}

impl Recording {
    /// Opens a file. Nothing but its header is read.
    ///
    /// # Errors
    /// When it cannot be read, or is no recording of Ethernet frames.
    pub fn open(source: Source) -> Result<Self, Unreadable> {
        let path = source.path.clone();
        let failed = |error| Unreadable::Io { path: path.clone(), source: error };
        let file = File::open(&path).map_err(failed)?;
        let about = file.metadata().map_err(failed)?;
        if about.is_dir() {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        }
        Self::read(source, Whole(file), about.len())
    }

    /// Reads `bytes`, `len` of them, as a file.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(super) fn read(source: Source, bytes: impl Read + Send + 'static, len: u64) -> Result<Self, Unreadable> {
        let path = || source.path.clone();
        let blocks = create_reader(BUFFER, bytes).map_err(|error| match error {
            PcapError::Eof => Unreadable::Empty { path: path() },
            PcapError::ReadError => Unreadable::Io { path: path(), source: io::ErrorKind::Other.into() },
            _ => Unreadable::NoCapture { path: path() },
        })?;
        let format = Format::new();
        let mut recording = Self { source, blocks, format, len };
        recording.read_header()?;
        Ok(recording)
    }

    /// The link type of a pcap file stands in its header, which is the first block; a pcapng file has one for each
    /// interface.
    fn read_header(&mut self) -> Result<(), Unreadable> {
        let Ok((len, PcapBlockOwned::LegacyHeader(header))) = self.blocks.next() else { return Ok(()) };
        let number = header.network.0.cast_unsigned();
        let link =
            Link::new(number).ok_or_else(|| Unreadable::Link { path: self.source.path.clone(), link: number })?;
        self.format.legacy = Some((link, header.is_nanosecond_precision()));
        self.blocks.consume(len);
        Ok(())
    }

    /// What is recorded there: the port by its name if one is given, else by the file's.
    #[must_use]
    pub fn name(&self) -> String {
        let stem = || self.source.path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        self.source.name.clone().or_else(stem).unwrap_or_default()
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.source.path
    }

    /// Whether the port was named by whoever replays.
    pub(super) const fn is_named(&self) -> bool {
        self.source.name.is_some()
    }

    /// Its length in bytes, and how much of that has been read.
    pub(super) fn progress(&self) -> (u64, u64) {
        (self.len, self.blocks.consumed() as u64)
    }

    /// What a described interface is called; `None` if it has no name.
    pub(super) fn interface(&self, number: usize) -> Option<&str> {
        self.format.names.get(number).map(String::as_str)
    }

    /// How many interfaces have been described so far.
    pub(super) const fn interfaces(&self) -> usize {
        self.format.names.len()
    }

    /// Frames that are not Ethernet.
    pub(super) const fn foreign(&self) -> u64 {
        self.format.foreign
    }

    /// The next frame of Ethernet; `None` at the end.
    ///
    /// # Errors
    /// Where the file is damaged. There is nothing to be read behind that.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, Flaw> {
        loop {
            let at = self.blocks.consumed() as u64;
            match self.step(at) {
                Next::Block(len, frame) => {
                    self.blocks.consume(len);
                    if frame.is_some() {
                        return Ok(frame);
                    }
                }
                Next::End => return Ok(None),
                Next::Flaw(flaw) => return Err(flaw),
                Next::More => self.fill(at, false)?,
                Next::Room => self.fill(at, true)?,
            }
        }
    }

    fn step(&mut self, at: u64) -> Next {
        match self.blocks.next() {
            Ok((len, block)) => Next::Block(len, self.format.take(&block)),
            Err(PcapError::Eof) => Next::End,
            Err(PcapError::Incomplete(_)) => Next::More,
            Err(PcapError::BufferTooSmall) => Next::Room,
            Err(PcapError::UnexpectedEof) => Next::Flaw(Flaw::CutOff { at }),
            Err(PcapError::ReadError) => Next::Flaw(Flaw::Io { at }),
            Err(_) => Next::Flaw(Flaw::Damaged { at }),
        }
    }

    /// Reads on, with more room if that is what it takes.
    fn fill(&mut self, at: u64, grow: bool) -> Result<(), Flaw> {
        let before = self.blocks.data().len();
        if grow && (before >= LARGEST_BLOCK || !self.blocks.grow((before * 2).max(BUFFER * 2))) {
            return Err(Flaw::TooLarge { at });
        }
        self.blocks.refill().map_err(|_| Flaw::Io { at })?;
        let is_stuck = self.blocks.data().len() == before && !self.blocks.reader_exhausted();
        if is_stuck { Err(Flaw::Damaged { at }) } else { Ok(()) }
    }
}

impl Format {
    const fn new() -> Self {
        Self {
            legacy: None,
            big_endian: false,
            interfaces: Vec::new(),
            names: Vec::new(),
            last: Timestamp::from_nanos(0),
            foreign: 0,
        }
    }

    /// The frame in a block, if there is one.
    fn take(&mut self, block: &PcapBlockOwned<'_>) -> Option<Frame> {
        let frame = match block {
            PcapBlockOwned::Legacy(packet) => self.legacy(packet),
            PcapBlockOwned::NG(block) => self.block(block)?,
            PcapBlockOwned::LegacyHeader(_) => return None,
        };
        match frame {
            Some(frame) => self.last = frame.at,
            None => self.foreign += 1,
        }
        frame
    }

    fn legacy(&self, packet: &LegacyPcapBlock<'_>) -> Option<Frame> {
        let (link, nanos) = self.legacy?;
        let fraction = u64::from(packet.ts_usec) * if nanos { 1 } else { 1000 };
        let at = Timestamp::from_nanos(u64::from(packet.ts_sec) * 1_000_000_000 + fraction);
        let data = packet.data.get(..packet.caplen as usize).unwrap_or(packet.data);
        Some(Frame::new(at, Place::Anywhere, link.bare(data)?))
    }

    /// `None` if there is no frame in it; `Some(None)` if that is none of Ethernet.
    fn block(&mut self, block: &Block<'_>) -> Option<Option<Frame>> {
        match block {
            Block::SectionHeader(section) => {
                self.big_endian = section.big_endian();
                self.interfaces.clear();
                None
            }
            Block::InterfaceDescription(interface) => {
                self.describe(interface);
                None
            }
            Block::EnhancedPacket(packet) => {
                let ticks = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                let frame = |interface: &Interface| interface.frame(interface.time(ticks), packet.packet_data());
                Some(self.interfaces.get(packet.if_id as usize).and_then(frame))
            }
            // It bears no time, and is of the first interface.
            Block::SimplePacket(packet) => {
                let frame = |interface: &Interface| interface.frame(self.last, packet.packet_data());
                Some(self.interfaces.first().and_then(frame))
            }
            _ => None,
        }
    }

    fn describe(&mut self, block: &InterfaceDescriptionBlock<'_>) {
        let called = block.if_name().and_then(Result::ok).map(|name| name.trim_end_matches('\0').to_owned());
        let called = called.filter(|name| !name.is_empty()).unwrap_or_else(|| format!("#{}", self.interfaces.len()));
        let known = self.names.iter().position(|name| *name == called);
        if self.interfaces.len() >= MOST_INTERFACES || self.names.len() >= MOST_INTERFACES {
            return;
        }
        let name = known.unwrap_or_else(|| {
            self.names.push(called);
            self.names.len() - 1
        });
        // The library reads the offset as little endian, whatever the section is.
        let offset = if self.big_endian { block.if_tsoffset.swap_bytes() } else { block.if_tsoffset };
        let link = Link::new(block.linktype.0.cast_unsigned());
        self.interfaces.push(Interface { name, link, ticks: ticks(block.if_tsresol), offset });
    }
}

/// What a second has of the unit: a power of ten, or of two if the highest bit is set (pcapng, `if_tsresol`).
fn ticks(resolution: u8) -> u128 {
    let exponent = u32::from(resolution & 0x7f);
    let base: u128 = if resolution & 0x80 == 0 { 10 } else { 2 };
    base.checked_pow(exponent).unwrap_or(10_u128.pow(MICROSECONDS.into()))
}

impl Interface {
    fn frame(&self, at: Timestamp, data: &[u8]) -> Option<Frame> {
        Some(Frame::new(at, Place::Described(self.name), self.link?.bare(data)?))
    }

    /// The moment in nanoseconds since 1970; the first or last that can be said, if it lies outside.
    fn time(&self, ticks: u64) -> Timestamp {
        let nanos = u128::from(ticks).saturating_mul(SECOND) / self.ticks;
        let offset = u128::from(self.offset.unsigned_abs()) * SECOND;
        let nanos = if self.offset < 0 { nanos.saturating_sub(offset) } else { nanos + offset };
        Timestamp::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

impl Frame {
    fn new(at: Timestamp, place: Place, bare: Bare) -> Self {
        let place = bare.interface.map_or(place, Place::Index);
        Self { at: at.min(LATEST), place, direction: bare.direction, head: bare.head }
    }
}

impl FromStr for Source {
    type Err = String;

    /// Reads `FILE` or `PORT=FILE`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            // What has a slash before it is the path of a file that has the sign in its name.
            Some((name, path)) if !name.contains('/') => match (name, path) {
                ("", _) | (_, "") => Err("write FILE, or PORT=FILE".to_owned()),
                _ => Ok(Self { name: Some(name.to_owned()), path: path.into() }),
            },
            _ => Ok(Self { name: None, path: text.into() }),
        }
    }
}

/// Reads as much as there is room for, so that a pipe gives no less at once than a file.
struct Whole<R>(R);

impl<R: Read> Read for Whole<R> {
    fn read(&mut self, mut room: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while !room.is_empty() {
            match self.0.read(room) {
                Ok(0) => break,
                Ok(read) => {
                    done += read;
                    room = room.get_mut(read..).unwrap_or_default();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }
}
