//! What is read from files, and read again when they change: certificates and tokens are replaced while the agent runs,
//! file by file (cert-manager) or by a turn of a symbolic link (Kubernetes' secrets).

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use tracing::{info, warn};

/// The longest file that is read, in bytes: a chain of certificates is far shorter.
const LONGEST: u64 = 256 * 1024;

/// Those who are neither the owner nor in the group (chmod(2)).
const OTHERS: u32 = 0o007;

/// Why a file is of no use.
#[derive(Debug, thiserror::Error)]
#[error("{flag} {}: {reason}", .path.display())]
pub struct Unusable {
    /// The flag that names it.
    pub flag: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: Flaw,
}

/// What can be wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum Flaw {
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] io::Error),
    /// It is longer than any that would make sense.
    #[error("longer than {LONGEST} bytes")]
    TooLong,
    /// It is secret, and others can open it.
    #[error("mode {0:04o} lets others than its owner and group open it; chmod o= closes it")]
    Open(u32),
    /// What is in it is not what it should be.
    #[error("{0}")]
    Content(String),
}

impl Unusable {
    /// Whether the same file may well be read the next time: not it is at fault, but the process (EMFILE) or the disk.
    fn may_pass(&self) -> bool {
        use io::ErrorKind::{NotFound, PermissionDenied};
        matches!(&self.reason, Flaw::Unreadable(error) if !matches!(error.kind(), NotFound | PermissionDenied))
    }
}

/// A file that a flag names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) flag: &'static str,
    pub(super) path: PathBuf,
}

impl Named {
    pub(super) fn flaw(&self, reason: impl Into<Flaw>) -> Unusable {
        Unusable { flag: self.flag, path: self.path.clone(), reason: reason.into() }
    }

    pub(super) fn content(&self, reason: impl fmt::Display) -> Unusable {
        self.flaw(Flaw::Content(reason.to_string()))
    }

    /// What is in it.
    pub(super) fn read(&self) -> Result<Vec<u8>, Unusable> {
        self.read_if(|_| Ok(()))
    }

    /// What is in it, if nobody can open it but its owner and its group.
    pub(super) fn read_secret(&self) -> Result<Vec<u8>, Unusable> {
        self.read_if(|mode| if mode & OTHERS == 0 { Ok(()) } else { Err(Flaw::Open(mode & 0o7777)) })
    }

    fn read_if(&self, fits: impl FnOnce(u32) -> Result<(), Flaw>) -> Result<Vec<u8>, Unusable> {
        let read = || {
            let file = File::open(&self.path)?;
            fits(file.metadata()?.mode())?;
            let mut bytes = Vec::new();
            file.take(LONGEST + 1).read_to_end(&mut bytes)?;
            if bytes.len() as u64 > LONGEST { Err(Flaw::TooLong) } else { Ok(bytes) }
        };
        read().map_err(|flaw: Flaw| self.flaw(flaw))
    }
}

/// Which file it was and when anything about it was changed last; nothing if there is none.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

fn stamp(path: &Path) -> Stamp {
    let found = path.metadata().ok()?;
    Some((found.dev(), found.ino(), found.size(), found.ctime(), found.ctime_nsec()))
}

/// A value out of files, as they were when they last made sense.
pub(super) struct Reread<T> {
    files: Vec<PathBuf>,
    understand: Understand<T>,
    held: Mutex<Held<T>>,
}

type Understand<T> = Box<dyn Fn() -> Result<T, Unusable> + Send + Sync>;

struct Held<T> {
    value: Arc<T>,
    /// Of the files when they were last read, whether they made sense then or not.
    stamps: Vec<Stamp>,
    /// Of the files when they could not be read, if that may pass, which was told then.
    told: Option<Vec<Stamp>>,
}

impl<T> Reread<T> {
    /// Reads the files for the first time, as it will `understand` them again.
    pub(super) fn open(
        files: Vec<PathBuf>,
        understand: impl Fn() -> Result<T, Unusable> + Send + Sync + 'static,
    ) -> Result<Self, Unusable> {
        let stamps = stamps(&files);
        let value = Arc::new(understand()?);
        Ok(Self { files, understand: Box::new(understand), held: Mutex::new(Held { value, stamps, told: None }) })
    }

    /// The value as of now. Files that have changed and make no sense are told of once, and the value stays what it was;
    /// files that only could not be read are read again the next time. Asks the file system, which may be slow.
    pub(super) fn now(&self) -> Arc<T> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        // What changes while it is read has another stamp the next time.
        let stamps = stamps(&self.files);
        if held.stamps != stamps {
            self.read_again(&mut held, stamps);
        }
        Arc::clone(&held.value)
    }

    fn read_again(&self, held: &mut Held<T>, stamps: Vec<Stamp>) {
        let error = match (self.understand)() {
            Ok(value) => {
                info!(event = "file_read_again", files = %self, "{self}: read again, since it has changed");
                *held = Held { value: Arc::new(value), stamps, told: None };
                return;
            }
            Err(error) => error,
        };
        if held.told.as_ref() != Some(&stamps) {
            warn!(event = "file_unusable", files = %self, "{error}; what was read before stays in use");
        }
        match error.may_pass() {
            true => held.told = Some(stamps),
            false => (held.stamps, held.told) = (stamps, None),
        }
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    files.iter().map(|file| stamp(file)).collect()
}

impl<T> fmt::Display for Reread<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.files.iter().map(|file| file.display().to_string()).collect();
        f.write_str(&names.join(" and "))
    }
}

impl<T> fmt::Debug for Reread<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reread").field("files", &self.files).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::PermissionsExt as _,
        sync::atomic::{AtomicBool, Ordering},
    };

    use nix::errno::Errno;

    use super::*;

    fn number(path: &Path) -> Result<Reread<u32>, Unusable> {
        let file = Named { flag: "--number", path: path.to_owned() };
        Reread::open(vec![path.to_owned()], move || {
            let text = String::from_utf8(file.read_secret()?).unwrap();
            text.parse().map_err(|error| file.content(error))
        })
    }

    fn close(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_is_broken_leaves_what_was_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("number");
        let missing = number(&path).unwrap_err().to_string();
        assert!(missing.starts_with("--number /") && missing.contains("No such file"), "{missing}");
        fs::write(&path, "1").unwrap();
        close(&path, 0o644);
        let open = number(&path).unwrap_err().to_string();
        assert!(open.ends_with("mode 0644 lets others than its owner and group open it; chmod o= closes it"), "{open}");
        close(&path, 0o640);
        let held = number(&path).unwrap();
        assert_eq!(*held.now(), 1);
        fs::write(&path, "1234567").unwrap();
        assert_eq!(*held.now(), 1_234_567);
        fs::write(&path, "no number").unwrap();
        assert_eq!(*held.now(), 1_234_567);
        fs::remove_file(&path).unwrap();
        assert_eq!(*held.now(), 1_234_567);
        fs::write(&path, "89").unwrap();
        close(&path, 0o600);
        assert_eq!(*held.now(), 89);
        close(&path, 0o604);
        fs::write(&path, "90").unwrap();
        assert_eq!(*held.now(), 89);
    }

    #[test]
    fn a_failure_that_passes_is_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("number");
        fs::write(&path, "1").unwrap();
        let fails = Arc::new(AtomicBool::new(false));
        let (file, out_of_files) = (Named { flag: "--number", path: path.clone() }, Arc::clone(&fails));
        let held = Reread::open(vec![path.clone()], move || {
            if out_of_files.load(Ordering::Relaxed) {
                return Err(file.flaw(io::Error::from_raw_os_error(Errno::EMFILE as i32)));
            }
            Ok(String::from_utf8(file.read()?).unwrap())
        })
        .unwrap();
        fs::write(&path, "12").unwrap();
        fails.store(true, Ordering::Relaxed);
        assert_eq!([held.now(), held.now()].map(|text| text.to_string()), ["1", "1"]);
        fails.store(false, Ordering::Relaxed);
        assert_eq!(*held.now(), "12");
    }

    #[test]
    fn a_link_that_turns_is_followed() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for (name, text) in [("old", "1"), ("new", "2")] {
            fs::write(at(name), text).unwrap();
            close(&at(name), 0o600);
        }
        std::os::unix::fs::symlink("old", at("number")).unwrap();
        let held = number(&at("number")).unwrap();
        std::os::unix::fs::symlink("new", at("turned")).unwrap();
        fs::rename(at("turned"), at("number")).unwrap();
        assert_eq!(*held.now(), 2);
    }

    #[test]
    fn a_file_without_an_end_is_not_read_to_it() {
        let endless = Named { flag: "--number", path: "/dev/zero".into() };
        assert!(matches!(endless.read(), Err(Unusable { reason: Flaw::TooLong, .. })));
    }
}
