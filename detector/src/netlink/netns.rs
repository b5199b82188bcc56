//! Network namespaces: finding those of the sandboxes, and the only place that enters one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs, io,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    thread,
};

use netlink_packet_route::{
    RouteNetlinkMessage,
    nsid::{NsidAttribute, NsidMessage},
};
use rustix::{
    fs::{Mode, OFlags, fstat, fstatfs, open},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use tokio::{runtime::Handle, sync::oneshot};

use super::{Error, route::Route};
use crate::net::NetnsId;

/// Where namespaces are bound to names: by `ip netns`, CNI and podman, and by Docker.
const NAMED: [&str; 2] = ["/run/netns", "/var/run/docker/netns"];
/// `NSFS_MAGIC` (`include/uapi/linux/magic.h`). A name left behind by a crash is a plain file of another file system.
const NSFS: i64 = 0x6e73_6673;
/// How many processes of a namespace are remembered: enough to find one that still lives and says who it is.
const PROCESSES: usize = 8;

/// The id by which the agent's namespace calls another one (`ip netns list-id`). The kernel gives an id anew after its
/// namespace is gone, so it is good only together with the port that led to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nsid(pub i32);

impl fmt::Display for Nsid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A network namespace, and what leads to it. Holds nothing open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which one it is.
    pub id: NetnsId,
    /// Files that it is bound to, `/run/netns` first.
    pub paths: Vec<PathBuf>,
    /// Some of its processes, lowest number first.
    pub processes: Vec<u32>,
}

/// An open file of a network namespace. It keeps the namespace alive: hold it no longer than the work in there takes.
#[derive(Debug)]
pub struct NetnsFile {
    file: OwnedFd,
    id: NetnsId,
}

impl NetnsFile {
    /// Opens the namespace that `path` is bound to, or that of a process (`/proc/PID/ns/net`).
    ///
    /// # Errors
    /// [`Error::OpenNetns`] if there is no such file or it is no namespace's.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::open_file(path).map_err(|source| Error::OpenNetns { path: path.to_owned(), source })
    }

    /// Which namespace it is.
    #[must_use]
    pub fn id(&self) -> NetnsId {
        self.id
    }

    /// Its file descriptor, for requests that name a namespace by one.
    pub(super) fn raw(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    fn open_file(path: &Path) -> io::Result<Self> {
        // Not to hang on a pipe that lies where a namespace should.
        let file = open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?;
        if fstatfs(&file)?.f_type != NSFS {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a namespace's file"));
        }
        let stat = fstat(&file)?;
        Ok(Self { id: NetnsId { device: stat.st_dev, inode: stat.st_ino }, file })
    }
}

impl Found {
    /// Opens the namespace by the first way that still leads to it.
    ///
    /// # Errors
    /// [`Error::OpenNetns`] if none does any more.
    pub fn open(&self) -> Result<NetnsFile, Error> {
        let processes = self.processes.iter().map(|pid| PathBuf::from(format!("/proc/{pid}/ns/net")));
        let mut last = None;
        for path in self.paths.iter().cloned().chain(processes) {
            match NetnsFile::open(&path) {
                // A process number or a name may mean another namespace by now.
                Ok(file) if file.id == self.id => return Ok(file),
                Ok(_) => {}
                Err(error) => last = Some(error),
            }
        }
        let gone = || Error::OpenNetns { path: self.id.to_string().into(), source: io::ErrorKind::NotFound.into() };
        Err(last.unwrap_or_else(gone))
    }

    /// A namespace that nothing is known to lead to yet.
    pub(super) fn new(id: NetnsId) -> Self {
        Self { id, paths: Vec::new(), processes: Vec::new() }
    }
}

/// Every namespace that something leads to, the agent's own too.
pub(super) async fn all() -> Result<BTreeMap<NetnsId, Found>, Error> {
    scan_aside().await
}

/// Every namespace that the agent's own has an id for and that something leads to.
pub(super) async fn by_nsid(route: &mut Route) -> Result<BTreeMap<Nsid, Found>, Error> {
    let found = scan_aside().await?;
    let mut known = BTreeMap::new();
    for found in found.into_values() {
        // What went away since the scan is no longer to be found, and no reason to miss the others.
        let Ok(file) = found.open() else { continue };
        if let Some(nsid) = nsid_of(route, &file).await? {
            known.insert(nsid, found);
        }
    }
    Ok(known)
}

/// The namespace that the calling thread is in.
pub(super) fn own() -> Result<NetnsId, Error> {
    NetnsFile::open(Path::new("/proc/thread-self/ns/net")).map(|file| file.id)
}

/// The id that the agent's namespace has for `netns`, if it has one.
pub(super) async fn nsid_of(route: &mut Route, netns: &NetnsFile) -> Result<Option<Nsid>, Error> {
    let mut request = NsidMessage::default();
    request.attributes.push(NsidAttribute::Fd(netns.raw().unsigned_abs()));
    let answer = route.one("read a namespace's id", RouteNetlinkMessage::GetNsId(request)).await?;
    let Some(RouteNetlinkMessage::NewNsId(answer)) = answer else { return Ok(None) };
    Ok(answer.attributes.iter().find_map(|attribute| match attribute {
        NsidAttribute::Id(id) if *id >= 0 => Some(Nsid(*id)),
        _ => None,
    }))
}

/// Opens a netlink socket inside `netns` and gives it to the calling task. It belongs for good to that namespace.
pub(super) async fn enter(netns: &NetnsFile) -> Result<Route, Error> {
    open_inside(netns, Route::open).await
}

/// Opens a socket, or several, inside `netns`, as [`enter`] does.
pub(super) async fn open_inside<T: Send + 'static>(
    netns: &NetnsFile,
    open: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Error> {
    inside(netns, open).await?.map_err(|source| Error::Enter { netns: netns.id, source })
}

/// Does `work` on a thread inside `netns`.
///
/// A thread belongs to a namespace only while it stays there. So the one that enters is made for that alone and ends in
/// there: were it of a pool, and were the way back to fail, the pool would go on to run anybody's work in a sandbox's
/// network.
pub(super) async fn inside<T: Send + 'static>(
    netns: &NetnsFile,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    let id = netns.id;
    let failed = |source| Error::Enter { netns: id, source };
    let file = netns.file.try_clone().map_err(failed)?;
    let enter = move || -> io::Result<T> {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(work())
    };
    aside(enter).await.and_then(|done| done).map_err(failed)
}

/// Does `work` on a thread that is made for it and ends with it.
pub(super) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let (done, result) = oneshot::channel();
    let runtime = Handle::current();
    thread::Builder::new().name("dupip-netns".to_owned()).spawn(move || {
        let _runtime = runtime.enter();
        // Nobody waits any more if the task was dropped; the result, a socket maybe, goes with it.
        let _ = done.send(work());
    })?;
    result.await.map_err(|_| io::ErrorKind::BrokenPipe.into())
}

/// The scan reads all of `/proc`, which takes milliseconds: not on the thread that events come in by.
async fn scan_aside() -> Result<BTreeMap<NetnsId, Found>, Error> {
    let done = tokio::task::spawn_blocking(scan).await;
    done.unwrap_or_else(|stopped| Err(Error::Scan { path: "/proc".into(), source: io::Error::other(stopped) }))
}

fn scan() -> Result<BTreeMap<NetnsId, Found>, Error> {
    let mut found = BTreeMap::new();
    for directory in NAMED {
        scan_named(Path::new(directory), &mut found)?;
    }
    scan_processes(Path::new("/proc"), &mut found)?;
    Ok(found)
}

fn scan_named(directory: &Path, found: &mut BTreeMap<NetnsId, Found>) -> Result<(), Error> {
    let names = match entries(directory) {
        Err(Error::Scan { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
        names => names?,
    };
    for path in names {
        if let Ok(file) = NetnsFile::open(&path) {
            found.entry(file.id).or_insert_with(|| Found::new(file.id)).paths.push(path);
        }
    }
    Ok(())
}

fn scan_processes(proc: &Path, found: &mut BTreeMap<NetnsId, Found>) -> Result<(), Error> {
    let pids: BTreeSet<u32> =
        entries(proc)?.iter().filter_map(|path| path.file_name()?.to_str()?.parse().ok()).collect();
    for pid in pids {
        // A process that ended meanwhile has no namespace any more.
        let Ok(file) = fs::metadata(proc.join(format!("{pid}/ns/net"))) else { continue };
        let id = NetnsId { device: file.dev(), inode: file.ino() };
        let netns = found.entry(id).or_insert_with(|| Found::new(id));
        if netns.processes.len() < PROCESSES {
            netns.processes.push(pid);
        }
    }
    Ok(())
}

/// The files in a directory, in the order of their names.
fn entries(directory: &Path) -> Result<BTreeSet<PathBuf>, Error> {
    let failed = |source| Error::Scan { path: directory.to_owned(), source };
    fs::read_dir(directory).map_err(failed)?.map(|entry| Ok(entry.map_err(failed)?.path())).collect()
}
