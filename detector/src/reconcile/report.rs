//! What was found, to be read by people and, before anything is reclaimed, by dupip again.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use humantime::{format_rfc3339_millis, parse_rfc3339};
use serde::{Deserialize, Serialize};

use super::{Observation, Row, compare};
use crate::time::Span;

/// The version that is written and read.
const VERSION: u32 = 1;
/// The longest report that is read, in bytes: a hundred thousand rows.
const LIMIT: u64 = 64 << 20;

/// What two observations have shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Of which version the report is.
    pub version: u32,
    /// When the second observation was made, as RFC 3339.
    pub taken: String,
    /// In which boot of the machine.
    pub boot: String,
    /// On which machine, for people.
    pub host: String,
    /// The lease database.
    pub database: PathBuf,
    /// The two observations.
    pub observations: Vec<Seen>,
    /// What does not fit, as the second one has shown it.
    pub rows: Vec<Row>,
    /// What could not be looked at, in either.
    pub gaps: Vec<String>,
}

/// One of the observations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    /// When it was begun, as RFC 3339.
    pub taken: String,
    /// How many leases there were.
    pub leases: usize,
    /// How many things were seen that show an address in use.
    pub sightings: usize,
    /// What could not be looked at.
    pub gaps: Vec<String>,
}

/// Why a report is not acted on.
#[derive(Debug, thiserror::Error)]
pub enum InvalidReport {
    /// It cannot be read.
    #[error("cannot read the report {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What reading it said.
        source: io::Error,
    },
    /// It is too long for one.
    #[error("{} has more than {LIMIT} bytes: that is no report", .0.display())]
    TooLong(PathBuf),
    /// It is not what `lease check` writes.
    #[error("{} is no report of `dupip lease check`: {source}", path.display())]
    Garbled {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Another version wrote it.
    #[error("the report has version {0}, and this dupip reads version {VERSION}: make a new one")]
    Version(u32),
    /// It does not hold two observations.
    #[error("the report has {0} observations instead of two: make a new one")]
    Observations(usize),
    /// The machine was started anew since.
    #[error("the report was made in another boot of the machine, or on another one: make a new one")]
    AnotherBoot,
    /// It is about other leases.
    #[error("the report is about the leases in {}: name that database, or make a new report", .0.display())]
    AnotherBook(PathBuf),
    /// It is too old.
    #[error("the report was made at {taken}, which is not within the last {} s: make a new one", max_age.as_secs())]
    Age {
        /// When.
        taken: String,
        /// How old it may be.
        max_age: Duration,
    },
}

impl Report {
    /// What two observations of the leases in `database` have shown. Only what both prove may be reclaimed.
    ///
    /// # Errors
    /// When the kernel does not tell which boot this is.
    pub fn of(observations: [&Observation; 2], database: &Path, grace: Span) -> io::Result<Self> {
        let [first, second] = observations;
        let before = compare(first, grace);
        let mut rows = compare(second, grace);
        for row in &mut rows {
            let same = |other: &Row| other.reclaimable && other.fence() == row.fence() && other.state == row.state;
            if row.reclaimable && !before.iter().any(same) {
                row.reclaimable = false;
                "nothing uses it, but that was not so when it was looked at first".clone_into(&mut row.reason);
            }
        }
        let observations: Vec<_> = observations.into_iter().map(Seen::of).collect();
        let mut gaps: Vec<_> = observations.iter().flat_map(|seen| seen.gaps.iter().cloned()).collect();
        gaps.sort();
        gaps.dedup();
        let taken = format_rfc3339_millis(second.taken).to_string();
        let (boot, host) = (boot()?, kernel_says("hostname").unwrap_or_default());
        Ok(Self { version: VERSION, taken, boot, host, database: absolute(database), observations, rows, gaps })
    }

    /// Reads a report.
    ///
    /// # Errors
    /// When it is none, or of another version.
    pub fn read(path: &Path) -> Result<Self, InvalidReport> {
        let failed = |source| InvalidReport::Read { path: path.to_owned(), source };
        let mut text = Vec::new();
        fs::File::open(path).map_err(failed)?.take(LIMIT + 1).read_to_end(&mut text).map_err(failed)?;
        if text.len() as u64 > LIMIT {
            return Err(InvalidReport::TooLong(path.to_owned()));
        }
        let garbled = |source| InvalidReport::Garbled { path: path.to_owned(), source };
        let version: Version = serde_json::from_slice(&text).map_err(garbled)?;
        if version.version != VERSION {
            return Err(InvalidReport::Version(version.version));
        }
        serde_json::from_slice(&text).map_err(garbled)
    }

    /// Writes it to `path`, whole or not at all.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut new = path.as_os_str().to_owned();
        new.push(format!(".{}.new", std::process::id()));
        let new = PathBuf::from(new);
        let written = self.write_new(&new).and_then(|()| fs::rename(&new, path));
        if written.is_err() {
            // Nothing helps if even that fails.
            let _ = fs::remove_file(&new);
        }
        written
    }

    /// Whether it may be acted on now, with the leases in `database`.
    ///
    /// # Errors
    /// When it is of another boot, about another database, too old, or no result of two observations.
    pub fn check(&self, database: &Path, max_age: Duration) -> Result<(), InvalidReport> {
        if self.observations.len() != 2 {
            return Err(InvalidReport::Observations(self.observations.len()));
        }
        if boot().ok().as_ref() != Some(&self.boot) {
            return Err(InvalidReport::AnotherBoot);
        }
        if self.database != absolute(database) {
            return Err(InvalidReport::AnotherBook(self.database.clone()));
        }
        let age = parse_rfc3339(&self.taken).ok().and_then(|taken| SystemTime::now().duration_since(taken).ok());
        match age {
            Some(age) if age <= max_age => Ok(()),
            _ => Err(InvalidReport::Age { taken: self.taken.clone(), max_age }),
        }
    }

    fn write_new(&self, path: &Path) -> io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        serde_json::to_writer_pretty(&mut file, self)?;
        file.write_all(b"\n")?;
        file.sync_all()
    }
}

impl Seen {
    fn of(observation: &Observation) -> Self {
        Self {
            taken: format_rfc3339_millis(observation.taken).to_string(),
            leases: observation.standings.len(),
            sightings: observation.evidence.sightings.len(),
            gaps: observation.evidence.gaps.iter().map(|gap| gap.what.clone()).collect(),
        }
    }
}

/// What is read of a report that may be of another version.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

fn boot() -> io::Result<String> {
    kernel_says("random/boot_id")
}

fn kernel_says(what: &str) -> io::Result<String> {
    Ok(fs::read_to_string(Path::new("/proc/sys/kernel").join(what))?.trim().to_owned())
}

fn absolute(path: &Path) -> PathBuf {
    fs::canonicalize(path).or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_owned())
}
