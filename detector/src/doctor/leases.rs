//! The lease database.

use std::{io, path::Path};

use super::{Check, Lack};
use crate::allocator::{OpenError, Refusal, read_leases};

const NAME: &str = "lease_database";

pub(super) fn examine(database: &Path) -> Vec<Check> {
    let check = match read_leases(database) {
        Ok(leases) => {
            let held = leases.iter().filter(|lease| lease.state.is_held()).count();
            Check::ok(NAME, format!("sound, with {} leases, of which {held} are held", leases.len()))
        }
        Err(OpenError { reason, .. }) => refused(&reason, database),
    };
    vec![check.of(database.display())]
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        allocator::{Clock, SqliteStore},
        doctor::Status,
    };

    #[test]
    fn a_database_is_sound_absent_or_damaged() {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("leases.db");
        let look = || examine(&database).pop().unwrap();
        assert!(look().meaning.contains("there is none yet"), "{:?}", look());
        assert!(!database.exists(), "to look makes nothing");
        drop(SqliteStore::open(&database, "test", Clock::system().unwrap()).unwrap());
        assert_eq!((look().status, look().meaning.as_str()), (Status::Ok, "sound, with 0 leases, of which 0 are held"));
        fs::write(&database, [7; 4096]).unwrap();
        assert!(look().status == Status::Warning && look().meaning.contains("is damaged"), "{:?}", look());
    }
}
