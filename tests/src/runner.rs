//! The runner: a host with nothing on it yet.

use std::{
    ffi::OsStr,
    fmt, fs,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{
    Bridge, Command, NamespaceId,
    host::{Host, Place},
};

/// A private host. It ends, with all that is on it, when the last of its handles is dropped (this one and its clones, its
/// bridges, their sandboxes and the processes started here), and in any case with the process that made it.
#[derive(Clone, Debug)]
pub struct Runner {
    place: Place,
}

/// A runner that outlives its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The process that holds the runner: end it, and the runner is gone.
    pub holder: u32,
}

impl Runner {
    /// Makes a runner with nothing but a loopback device.
    ///
    /// # Errors
    /// If not root, or if the kernel refuses; the error says which step failed.
    pub fn new() -> Result<Self> {
        Ok(Self { place: Place::runner(Host::new()?) })
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// The process that holds the runner.
    #[must_use]
    pub fn holder(&self) -> u32 {
        self.place.host.pid()
    }

    /// Runs a command to its end and returns its standard output; see [`Command::run`].
    ///
    /// # Errors
    /// If the command cannot be started or fails.
    pub fn run<S: AsRef<OsStr>>(&self, line: impl IntoIterator<Item = S>) -> Result<String> {
        self.place.run(line)
    }

    /// A command that will run here.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        Command::new(&self.place, program)
    }

    /// Does `work` in a thread that sees the runner's network and files.
    ///
    /// # Errors
    /// Those of `work`, or if the runner is gone.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.place.inside(work)
    }

    /// Sets a kernel parameter of the runner's network, as in `sysctl net.ipv4.ip_forward=1`.
    ///
    /// # Errors
    /// If there is no such parameter or it does not take the value.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        self.place.sysctl(name, value)
    }

    /// Makes a bridge and gives it an address, such as `10.8.64.1/24`: the gateway of its sandboxes.
    ///
    /// # Errors
    /// If the address cannot be read or the kernel refuses.
    pub fn bridge(&self, name: &str, address: &str) -> Result<Bridge> {
        Bridge::new(self, name, address)
    }

    /// An empty directory in memory for whatever runs here. The path means something only inside the runner.
    #[must_use]
    pub fn dir(&self) -> &Path {
        Path::new("/run/lab")
    }

    /// Where the machine sees one of the runner's files.
    ///
    /// The way leads through a link in `/proc` that must be followed by the kernel: a program that resolves links itself
    /// (SQLite does) ends up at the machine's own file of that name.
    #[must_use]
    pub fn outside(&self, path: &Path) -> PathBuf {
        let mut outside = PathBuf::from(format!("/proc/{}/root", self.holder()));
        outside.extend(path.components().skip_while(|part| *part == Component::RootDir));
        outside
    }

    /// Makes an empty control group that goes with the runner, together with those below it and all their processes.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn make_cgroup(&self, name: &str) -> Result<PathBuf> {
        let cgroup = PathBuf::from(format!("/sys/fs/cgroup/lab-{}-{name}", self.holder()));
        self.inside(|| fs::create_dir(&cgroup).with_context(|| format!("cannot make {}", cgroup.display())))?;
        self.place.host.remove_at_the_end(&cgroup)?;
        Ok(cgroup)
    }

    /// The identity of the runner's network namespace.
    ///
    /// # Errors
    /// If the runner is gone.
    pub fn netns(&self) -> Result<NamespaceId> {
        NamespaceId::of(&self.place.netns()?)
    }

    /// Lets the runner, and every process on it, outlive this process.
    ///
    /// # Errors
    /// If the runner is gone.
    pub fn keep(self) -> Result<Kept> {
        self.place.host.keep().context("the lab cannot be kept")?;
        Ok(Kept { holder: self.holder() })
    }
}

impl Kept {
    /// The command that enters the lab, as root.
    #[must_use]
    pub fn enter(&self) -> String {
        format!("nsenter --target {} --net --mount --pid", self.holder)
    }

    /// The command that removes the lab, as root.
    #[must_use]
    pub fn remove(&self) -> String {
        format!("kill {}", self.holder)
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "enter the lab (as root):   {}", self.enter())?;
        write!(f, "remove the lab (as root):  {}", self.remove())
    }
}
