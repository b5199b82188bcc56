//! Whether a namespace's kernel logs martians: what has to be set before its log can tell of any.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    Error,
    netns::{self, Found},
};
use crate::net::NetnsId;

/// Shows the settings of the network namespace that the reading thread is in.
const IPV4: &str = "/proc/sys/net/ipv4";

/// Which interfaces of a namespace log martians.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MartianLogging {
    /// The namespace.
    pub netns: NetnsId,
    /// Whether it is that of whoever looks.
    pub is_own: bool,
    /// `net.ipv4.conf.all.log_martians`: what is set there holds for every interface.
    pub all: bool,
    /// `net.ipv4.ip_forward`. Without it the kernel says nothing of a martian that is for somebody else.
    pub ip_forward: bool,
    /// The interfaces by name.
    pub interfaces: BTreeMap<String, InterfaceLogging>,
}

/// What is set for one interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceLogging {
    /// Whether martians that come in by it are logged: its own `log_martians`, or the one for all
    /// (`IN_DEV_LOG_MARTIANS` in `include/linux/inetdevice.h`).
    pub log_martians: bool,
    /// Whether it forwards (`IN_DEV_FORWARD`).
    pub forwarding: bool,
}

/// Reads what the namespace `found` is set to log.
///
/// # Errors
/// As [`Found::open`]; [`Error::Enter`] if we are not let in; [`Error::Sysctl`] if the settings cannot be read.
pub async fn martian_logging(found: &Found) -> Result<MartianLogging, Error> {
    let id = found.id;
    if netns::own()? == id {
        return read(id, true);
    }
    netns::inside(&found.open()?, move || read(id, false)).await?
}

/// Every namespace that a name or a process leads to, and in any case the own one.
///
/// # Errors
/// [`Error::Scan`] if they cannot be listed.
pub async fn namespaces() -> Result<Vec<Found>, Error> {
    let (own, mut found) = (netns::own()?, netns::all().await?);
    found.entry(own).or_insert_with(|| Found::new(own));
    Ok(found.into_values().collect())
}

fn read(netns: NetnsId, is_own: bool) -> Result<MartianLogging, Error> {
    let root = Path::new(IPV4);
    let settings = || -> Result<MartianLogging, (PathBuf, io::Error)> {
        let all = flag(root.join("conf/all/log_martians"))?;
        let ip_forward = flag(root.join("ip_forward"))?;
        Ok(MartianLogging { netns, is_own, all, ip_forward, interfaces: interfaces(&root.join("conf"), all)? })
    };
    settings().map_err(|(path, source)| Error::Sysctl { netns, path, source })
}

fn interfaces(conf: &Path, all: bool) -> Result<BTreeMap<String, InterfaceLogging>, (PathBuf, io::Error)> {
    let failed = |source| (conf.to_owned(), source);
    let mut interfaces = BTreeMap::new();
    for entry in fs::read_dir(conf).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // No interface can be called so (`sysctl_dev_name_is_allowed` in `net/ipv4/devinet.c`).
        if name == "all" || name == "default" {
            continue;
        }
        match interface(&entry.path(), all) {
            // It went away meanwhile.
            Err((_, source)) if source.kind() == io::ErrorKind::NotFound => {}
            set => drop(interfaces.insert(name, set?)),
        }
    }
    Ok(interfaces)
}

fn interface(conf: &Path, all: bool) -> Result<InterfaceLogging, (PathBuf, io::Error)> {
    let log_martians = all | flag(conf.join("log_martians"))?;
    Ok(InterfaceLogging { log_martians, forwarding: flag(conf.join("forwarding"))? })
}

/// A setting that is on with any number but 0.
fn flag(path: PathBuf) -> Result<bool, (PathBuf, io::Error)> {
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim() != "0"),
        Err(error) => Err((path, error)),
    }
}
