//! What stays when the agent goes: the quarantine, and the links of the programs that guard it.

use std::{
    fs,
    io::{self, ErrorKind},
    os::fd::{BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use aya::{
    maps::{Map, MapData, MapType},
    programs::{
        links::{FdLink, PinnedLink},
        tc::SchedClassifierLink,
    },
};
use detector_ebpf::{MAX_QUARANTINE, QuarantineKey};
use rustix::{
    fs::{FlockOperation, Mode, OFlags, flock, open, statfs},
    io::Errno,
};
use tracing::{debug, warn};

use super::{CaptureError, bpf, error::map_errno, hook::sever, quarantine::QuarantineMap};
use crate::net::IfIndex;

/// The quarantine's name in the directory.
const MAP: &str = "quarantine";
/// What the names of links begin with; the index of the link's interface follows.
const LINK: &str = "port-";
/// How long the agent before may take to let go, and how often it is looked.
const PATIENCE: Duration = Duration::from_secs(2);
const TURN: Duration = Duration::from_millis(10);
/// `BPF_FS_MAGIC` (`include/uapi/linux/magic.h`).
const BPF_FS: u32 = 0xcafe_4a11;

/// What becomes of the quarantine when the agent goes, however it does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum KeepQuarantine {
    /// It ends. What another agent may have kept is not looked for.
    #[default]
    Ignore,
    /// It ends, and what an earlier agent has kept in this directory does so now, unless that one still runs.
    Clear(PathBuf),
    /// It stays in force, and the next agent takes it over: for that it is kept in this directory, which is on a BPF file
    /// system and is made if it is not there.
    Keep(PathBuf),
}

/// The directory, which is this process's as long as it has it open: nobody takes over what another still works with.
#[derive(Debug)]
pub(super) struct Vault {
    path: PathBuf,
    _locked: OwnedFd,
}

impl Vault {
    /// Opens it, if there is to be one, or removes what is in it.
    pub(super) fn open(keep: &KeepQuarantine) -> Result<Option<Self>, CaptureError> {
        match keep {
            KeepQuarantine::Ignore => Ok(None),
            KeepQuarantine::Clear(path) => {
                clear(path);
                Ok(None)
            }
            KeepQuarantine::Keep(path) => {
                make(path)?;
                let vault = Self::lock_soon(path)?;
                vault.kept_map()?;
                Ok(Some(vault))
            }
        }
    }

    /// An agent that is just ending, or a program that it is just starting, has the directory for a moment more.
    fn lock_soon(path: &Path) -> Result<Self, CaptureError> {
        let began = Instant::now();
        loop {
            match Self::lock(path) {
                Err(CaptureError::KeptByAnother { .. }) if began.elapsed() < PATIENCE => thread::sleep(TURN),
                locked => return locked,
            }
        }
    }

    fn lock(path: &Path) -> Result<Self, CaptureError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = open(path, flags, Mode::empty()).map_err(|errno| keep(path, errno))?;
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), _locked: directory }),
            Err(Errno::WOULDBLOCK) => Err(CaptureError::KeptByAnother { path: path.to_owned() }),
            Err(errno) => Err(keep(path, errno)),
        }
    }

    /// Where the quarantine is kept.
    pub(super) fn map_path(&self) -> PathBuf {
        self.path.join(MAP)
    }

    /// The quarantine that was kept, if there is one.
    fn kept_map(&self) -> Result<Option<QuarantineMap>, CaptureError> {
        let path = self.map_path();
        let map = match MapData::from_pin(&path) {
            Ok(map) => map,
            Err(error) => {
                return match map_errno(&error) {
                    Some(Errno::NOENT) => Ok(None),
                    Some(Errno::PERM) => Err(CaptureError::NotPermitted),
                    Some(errno) => Err(keep(&path, errno)),
                    None => Err(keep(&path, io::Error::other(error))),
                };
            }
        };
        let ours = if is_quarantine(&map) { Map::from_map_data(map).and_then(TryInto::try_into).ok() } else { None };
        ours.map(Some).ok_or(CaptureError::Incompatible { path })
    }

    /// The link that was kept for `port`.
    pub(super) fn link(&self, port: IfIndex) -> Option<SchedClassifierLink> {
        let link = PinnedLink::from_pin(self.link_path(port)).ok()?;
        SchedClassifierLink::try_from(FdLink::from(link)).ok()
    }

    /// Keeps the link at `port`, in place of whatever was kept for it.
    pub(super) fn pin(&self, port: IfIndex, link: BorrowedFd<'_>) -> Result<(), CaptureError> {
        let path = self.link_path(port);
        let pinned = bpf::pin(link, &path).or_else(|error| match error.kind() {
            ErrorKind::AlreadyExists => fs::remove_file(&path).and_then(|()| bpf::pin(link, &path)),
            _ => Err(error),
        });
        pinned.map_err(|error| keep(&path, error))
    }

    /// Keeps the link at `port` no longer. If nobody else has it, its program runs no longer.
    pub(super) fn unpin(&self, port: IfIndex) -> Result<(), CaptureError> {
        let path = self.link_path(port);
        removed(fs::remove_file(&path)).map_err(|error| keep(&path, error))
    }

    /// Cuts off the link that was kept for `port`, if there is one.
    pub(super) fn end(&self, port: IfIndex) -> Result<(), CaptureError> {
        if let Some(link) = self.link(port) {
            sever(&link).map_err(|error| keep(&self.link_path(port), error))?;
        }
        self.unpin(port)
    }

    /// For which ports a link is kept.
    pub(super) fn ports(&self) -> Vec<IfIndex> {
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| IfIndex::new(entry.file_name().to_str()?.strip_prefix(LINK)?.parse().ok()?))
            .collect()
    }

    /// Removes what is left of it, when nothing is contained any more.
    pub(super) fn remove(&self) -> Result<(), CaptureError> {
        let path = self.map_path();
        removed(fs::remove_file(&path)).map_err(|error| keep(&path, error))?;
        // Somebody else may have put something there.
        fs::remove_dir(&self.path)
            .unwrap_or_else(|error| debug!(event = "directory_stays", %error, "the directory stays"));
        Ok(())
    }

    fn end_all(&self) -> Result<(), CaptureError> {
        if let Some(mut map) = self.kept_map()? {
            // Filters of the clsact discipline go on to look there until the next agent removes them.
            let keys: Vec<_> = map.keys().flatten().collect();
            keys.iter().try_for_each(|key| map.remove(key)).map_err(|source| CaptureError::Quarantine { source })?;
        }
        self.ports().into_iter().try_for_each(|port| self.end(port))?;
        self.remove()
    }

    fn link_path(&self, port: IfIndex) -> PathBuf {
        self.path.join(format!("{LINK}{port}"))
    }
}

/// Removes what was kept in `path`. That this cannot be done ends no agent.
fn clear(path: &Path) {
    if !is_on_bpf(path) {
        return;
    }
    match Vault::lock(path).and_then(|vault| vault.end_all()) {
        Ok(()) => {}
        Err(error @ CaptureError::KeptByAnother { .. }) => {
            debug!(event = "quarantine_of_another", %error, "it is left alone")
        }
        Err(error) => warn!(event = "quarantine_stays", %error, "a quarantine of an earlier agent stays in force"),
    }
}

fn make(path: &Path) -> Result<(), CaptureError> {
    let is_there = path.exists();
    let place = if is_there { path } else { path.parent().unwrap_or(path) };
    if !is_on_bpf(place) {
        return Err(CaptureError::NoBpfFileSystem { path: path.to_owned() });
    }
    if is_there { Ok(()) } else { fs::create_dir(path).map_err(|error| keep(path, error)) }
}

fn is_on_bpf(path: &Path) -> bool {
    statfs(path).is_ok_and(|system| u32::try_from(system.f_type) == Ok(BPF_FS))
}

/// Whether a map is what the program takes for its quarantine.
fn is_quarantine(map: &MapData) -> bool {
    map.info().is_ok_and(|info| {
        matches!(info.map_type(), Ok(MapType::Hash))
            && (info.key_size() as usize, info.value_size() as usize) == (size_of::<QuarantineKey>(), size_of::<u64>())
            && info.max_entries() == MAX_QUARANTINE
    })
}

/// That it was not there is as good.
fn removed(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn keep(path: &Path, source: impl Into<io::Error>) -> CaptureError {
    CaptureError::Keep { path: path.to_owned(), source: source.into() }
}
