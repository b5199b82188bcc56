//! The lease database.

use std::{io, path::Path};

use rustix::fs::{StatVfsMountFlags, statvfs};

use super::{
    Check, Lack,
    topics::{self, Topic},
};
use crate::allocator::{OpenError, Refusal, read_leases};

/// Less room than this is soon none, in bytes.
const LITTLE: u64 = 64 << 20;
/// As few files more are soon none.
const FEW: u64 = 16;

const NAME: &Topic = topics::LEASE_DATABASE;

pub(super) fn examine(database: &Path) -> Vec<Check> {
    let check = match read_leases(database) {
        Ok(leases) => {
            let held = leases.iter().filter(|lease| lease.state.is_held()).count();
            Check::ok(NAME, format!("sound, with {} leases, of which {held} are held", leases.len()))
        }
        Err(OpenError { reason, .. }) => refused(&reason, database),
    };
    vec![check.of(database.display()), disk(database)]
}

fn refused(reason: &Refusal, database: &Path) -> Check {
    match reason {
        Refusal::Unreachable(error) if error.kind() == io::ErrorKind::NotFound => {
            Check::warning(NAME, "there is none yet, so nobody holds an address")
                .cure("nothing has to be done: the agent makes it, and so does `dupip pool create`")
        }
        Refusal::Unreachable(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Check::missing(NAME, Lack::Permission, "may not be read, so it is not known who holds an address")
                .cure("run as root, or as the agent's user")
        }
        Refusal::Older { .. } => Check::warning(NAME, reason.to_string()),
        Refusal::Corrupt(_) | Refusal::Foreign { .. } | Refusal::Newer { .. } => Check::warning(
            NAME,
            format!("{reason}; `dupip run` refuses it"),
        )
        .cure(format!(
            "move {} away together with its -wal and -shm, and start the agent in enforce, which adopts who is there",
            database.display()
        )),
        _ => Check::warning(NAME, reason.to_string()),
    }
}

/// Room of the file system that the database is, or would be, on.
fn disk(database: &Path) -> Check {
    let there = database.ancestors().skip(1).find(|folder| folder.is_dir()).unwrap_or(Path::new("/"));
    match statvfs(there) {
        Ok(found) => {
            let is_read_only = found.f_flag.contains(StatVfsMountFlags::RDONLY);
            room(
                found.f_bavail.saturating_mul(found.f_frsize),
                (found.f_files > 0).then_some(found.f_favail),
                is_read_only,
            )
        }
        Err(errno) => Check::skipped(topics::DISK, format!("it cannot be asked: {errno}")),
    }
    .of(there.display())
}

fn room(bytes: u64, files: Option<u64>, is_read_only: bool) -> Check {
    const NAME: &Topic = topics::DISK;
    const LOSS: &str = "without room nobody is moved and nothing is handed out";
    let mib = bytes >> 20;
    match (is_read_only, bytes, files) {
        (true, ..) => Check::warning(NAME, format!("is mounted read-only: {LOSS}"))
            .cure("mount -o remount,rw it, or --database elsewhere"),
        (_, ..LITTLE, _) => Check::warning(NAME, format!("has {mib} MiB left: {LOSS}"))
            .cure("make room there (df -h), or --database elsewhere"),
        (.., Some(..FEW)) => Check::warning(NAME, format!("has hardly any file left: {LOSS}"))
            .cure("remove files there (df -i), or --database elsewhere"),
        _ => Check::ok(NAME, format!("has {mib} MiB left")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        allocator::{Clock, SqliteStore},
        doctor::Status,
    };

    #[test]
    fn a_disk_without_room_is_told() {
        assert_eq!(
            (room(1 << 30, Some(1000), false).status, room(1 << 30, None, false).status),
            (Status::Ok, Status::Ok)
        );
        for check in [room(1 << 30, None, true), room(1 << 20, None, false), room(1 << 30, Some(3), false)] {
            assert!(check.status == Status::Warning && check.remedy.is_some(), "{check:?}");
        }
        assert_eq!(disk(Path::new("/nonexistent/folder/leases.db")).subject.as_deref(), Some("/"));
    }

    #[test]
    fn a_database_is_sound_absent_or_damaged() {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("leases.db");
        let look = || examine(&database).swap_remove(0);
        assert!(look().meaning.contains("there is none yet"), "{:?}", look());
        assert!(!database.exists(), "to look makes nothing");
        drop(SqliteStore::open(&database, "test", Clock::system().unwrap()).unwrap());
        assert_eq!((look().status, look().meaning.as_str()), (Status::Ok, "sound, with 0 leases, of which 0 are held"));
        fs::write(&database, [7; 4096]).unwrap();
        assert!(look().status == Status::Warning && look().meaning.contains("is damaged"), "{:?}", look());
    }
}
