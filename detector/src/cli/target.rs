//! Files that a verb writes as a whole: beside it first, then by another name over what was there.

use std::{fs, path::Path};

use super::exit::{Exit, Failure};

/// Refuses a target that a rename would not write to but put something else in place of: a device, a pipe, a directory, or
/// a link such as `/dev/stdout`. Whether it can be written to is not asked.
///
/// # Errors
/// When it is one of these, or `-`.
pub(super) fn replaceable(path: &Path) -> Result<(), Failure> {
    let refused =
        |what: &str| Err(Failure::new(Exit::Usage, what).hint("name a file, and hand that on when it is written"));
    match fs::symlink_metadata(path) {
        _ if path == Path::new("-") => refused("`-` is no file: what is written is there as a whole or not at all"),
        Ok(found) if !found.is_file() => {
            refused(&format!("{} is no regular file, and would be replaced by one", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn only_what_is_a_file_or_not_there_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        mknodat(CWD, at("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        fs::write(at("file"), "").unwrap();
        symlink(at("file"), at("link")).unwrap();
        symlink(at("none"), at("dangling")).unwrap();
        for taken in [at("fifo"), at("link"), at("dangling"), at(""), "-".into()] {
            assert!(replaceable(&taken).is_err(), "{}", taken.display());
        }
        for fine in [at("file"), at("none"), at("none/b")] {
            assert_eq!(replaceable(&fine), Ok(()), "{}", fine.display());
        }
    }
}
