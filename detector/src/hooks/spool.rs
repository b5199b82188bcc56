//! Keeps on disk what hooks are still to be told, so that an agent that was killed tells it when it runs again.

use std::{
    ffi::OsStr,
    fs::{self, DirBuilder, File},
    io::{self, ErrorKind, Read as _, Write as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{message::Message, settings::HookKey};

/// More than any message has, in bytes.
const LONGEST: u64 = 64 * 1024;
/// How the name of a file begins that is being written.
const UNFINISHED: &str = ".new-";
/// How the name of a file ends that has a message.
const ENDING: &str = "json";
/// How it ends if that cannot be read.
const DAMAGED: &str = "damaged";

/// One message that one hook is still to be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// When it was told of, among others.
    pub sequence: u64,
    /// Who is to be told.
    pub hook: HookKey,
    /// What.
    pub message: Message,
}

/// What was found of an earlier run.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// What is to be told, the oldest first.
    pub pending: Vec<Pending>,
    /// How many there are beyond as many as were asked for, or that the disk did not give.
    pub left: usize,
    /// What could not be read, and was set aside.
    pub damaged: Vec<String>,
}

/// Where messages are kept until they are told. All of it may wait for a disk.
pub trait Outbox: Send + Sync {
    /// Keeps it, durably.
    ///
    /// # Errors
    /// When the disk fails.
    fn keep(&self, pending: &Pending) -> io::Result<()>;

    /// Keeps it no longer. That it is not kept is no error.
    ///
    /// # Errors
    /// When the disk fails.
    fn forget(&self, pending: &Pending) -> io::Result<()>;

    /// The oldest of what is kept.
    ///
    /// # Errors
    /// When the disk fails.
    fn pending(&self, most: usize) -> io::Result<Kept>;
}

/// A folder with a file for each message and hook.
#[derive(Clone, Debug)]
pub struct Spool {
    folder: PathBuf,
}

impl Spool {
    /// The one that belongs to a lease database: the folder `hooks` beside it. It is made when it is needed.
    #[must_use]
    pub fn beside(database: &Path) -> Self {
        Self { folder: database.with_file_name("hooks") }
    }

    fn path(&self, Pending { sequence, hook, message }: &Pending) -> PathBuf {
        self.folder.join(format!("{sequence:020}-{}-{}.{ENDING}", message.id, hook.as_str()))
    }

    /// The files that have messages, the oldest first. What was not finished is of no use to anybody.
    fn files(&self) -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(UNFINISHED.as_bytes())) {
                fs::remove_file(&path)?;
            } else if path.extension() == Some(OsStr::new(ENDING)) {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }

    /// `None` for what cannot be what [`Spool::keep`] wrote.
    fn read(&self, path: &Path) -> io::Result<Option<Pending>> {
        let mut text = Vec::new();
        File::open(path)?.take(LONGEST).read_to_end(&mut text)?;
        let pending = serde_json::from_slice(&text).ok();
        Ok(pending.filter(|pending| self.path(pending) == path))
    }
}

impl Outbox for Spool {
    fn keep(&self, pending: &Pending) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(&self.folder)?;
        file.write_all(&serde_json::to_vec(pending)?)?;
        file.as_file().sync_all()?;
        file.persist(self.path(pending))?;
        File::open(&self.folder)?.sync_all()
    }

    fn forget(&self, pending: &Pending) -> io::Result<()> {
        match fs::remove_file(self.path(pending)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    fn pending(&self, most: usize) -> io::Result<Kept> {
        let files = match self.files() {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Kept::default()),
            files => files?,
        };
        let mut kept = Kept { left: files.len().saturating_sub(most), ..Kept::default() };
        for path in files.into_iter().take(most) {
            match self.read(&path) {
                Ok(Some(pending)) => kept.pending.push(pending),
                // Perhaps the next time.
                Err(_) => kept.left += 1,
                Ok(None) => {
                    let aside = path.with_added_extension(DAMAGED);
                    fs::rename(&path, &aside)?;
                    kept.damaged.push(aside.display().to_string());
                }
            }
        }
        Ok(kept)
    }
}
