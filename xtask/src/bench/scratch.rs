//! Where files are made that are measured on, and what becomes of them on Ctrl-C.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context as _, Result, ensure};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
};
use tempfile::TempDir;

/// Where a file costs no writes to a disk.
const MEMORY: &str = "/dev/shm";

/// File systems that are in memory: what is written there is never waited for.
const IN_MEMORY: [&str; 2] = ["tmpfs", "ramfs"];

/// A directory on a disk and one in memory, which are gone when this value is, also after Ctrl-C.
#[derive(Debug)]
pub(super) struct Scratch {
    disk: TempDir,
    memory: TempDir,
    stop: Arc<AtomicBool>,
}

/// Somebody wants this to end.
#[derive(Debug, thiserror::Error)]
#[error("interrupted: everything is removed, nothing was measured to the end")]
pub(super) struct Interrupted;

impl Scratch {
    /// Makes both, the one on a disk within `parent`.
    ///
    /// # Errors
    /// When they cannot be made.
    pub(super) fn new(parent: &Path) -> Result<Self> {
        let stop = Arc::default();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            flag::register(signal, Arc::clone(&stop))?;
        }
        fs::create_dir_all(parent)?;
        let make = |parent: &Path| {
            let made = tempfile::Builder::new().prefix("dupip-bench-").tempdir_in(parent);
            made.with_context(|| format!("cannot make a directory in {}", parent.display()))
        };
        let disk = make(parent)?;
        // Without memory to make them in, the books take longer to make.
        let memory = make(Path::new(MEMORY)).or_else(|_| make(parent))?;
        Ok(Self { disk, memory, stop })
    }

    /// The directory on the disk.
    pub(super) fn disk(&self) -> &Path {
        self.disk.path()
    }

    /// The directory in memory.
    pub(super) fn memory(&self) -> &Path {
        self.memory.path()
    }

    /// A directory on the disk with nothing in it, whatever `name` held before.
    ///
    /// # Errors
    /// When it cannot be made, or somebody wants this to end.
    pub(super) fn fresh(&self, name: &str) -> Result<PathBuf> {
        self.go_on()?;
        let directory = self.disk().join(name);
        if directory.exists() {
            fs::remove_dir_all(&directory)?;
        }
        fs::create_dir(&directory)?;
        Ok(directory)
    }

    /// Copies `file` to `to`, and waits until the copy is on the disk: no later write has to wait for it.
    ///
    /// # Errors
    /// When it cannot be copied, or somebody wants this to end.
    pub(super) fn copy(&self, file: &Path, to: &Path) -> Result<()> {
        self.go_on()?;
        fs::copy(file, to)?;
        File::open(to)?.sync_all()?;
        to.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())?;
        Ok(())
    }

    /// Goes on unless somebody wants this to end.
    ///
    /// # Errors
    /// [`Interrupted`].
    pub(super) fn go_on(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) { Err(Interrupted.into()) } else { Ok(()) }
    }
}

/// Refuses file systems on which a commit waits for nothing.
///
/// # Errors
/// Naming what to do instead.
pub(super) fn ensure_disk(file_system: &str, directory: &Path) -> Result<()> {
    ensure!(
        !IN_MEMORY.contains(&file_system),
        "{} is on {file_system}, where a commit waits for no disk: name a directory on a disk with --directory",
        directory.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_stays() {
        let parent = TempDir::new().unwrap();
        let scratch = Scratch::new(parent.path()).unwrap();
        let (disk, memory) = (scratch.disk().to_owned(), scratch.memory().to_owned());
        let round = scratch.fresh("round").unwrap();
        fs::write(memory.join("book"), "leases").unwrap();
        scratch.copy(&memory.join("book"), &round.join("book")).unwrap();
        assert_eq!(fs::read_to_string(round.join("book")).unwrap(), "leases");
        assert!(!scratch.fresh("round").unwrap().join("book").exists());
        drop(scratch);
        assert!(!disk.exists() && !memory.exists());
    }

    #[test]
    fn memory_is_no_disk() {
        assert!(ensure_disk("ext4", Path::new("/")).is_ok());
        let error = ensure_disk("tmpfs", Path::new("/tmp")).unwrap_err().to_string();
        assert!(error.starts_with("/tmp is on tmpfs") && error.contains("--directory"), "{error}");
    }
}
