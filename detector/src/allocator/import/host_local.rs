//! The data directory of the CNI plugin `host-local`: a file for each address, called after it, with the container's id
//! and, in newer ones, the interface on a second line (`plugins/ipam/host-local/backend/disk/backend.go`).

use std::{
    fs::{self, OpenOptions},
    io::{self, Read},
    net::IpAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use super::{ImportError, Row, Word, unreadable};
use crate::net::{InvalidName, InvalidOwner};

/// Files that a directory may have: two /16 full.
const MOST_FILES: usize = 1 << 17;
/// Bytes that a file may have; a container's id and an interface take a tenth of it.
pub(super) const LONGEST: u64 = 1024;

/// What stands in host-local's directory for one network (`/var/lib/cni/networks/NAME`), by address. What is no lease of
/// an IPv4 address has a row that says so, except host-local's own notes (`lock`, `last_reserved_ip.N`).
///
/// # Errors
/// When the directory or a file in it cannot be read, or there are more than 131072 files.
pub fn host_local(dir: &Path) -> Result<Vec<Row>, ImportError> {
    let mut rows = Vec::new();
    for (seen, entry) in fs::read_dir(dir).map_err(unreadable(dir))?.enumerate() {
        if seen >= MOST_FILES {
            return Err(ImportError::TooLarge { path: dir.to_owned(), most: MOST_FILES as u64, what: "files" });
        }
        let path = entry.map_err(unreadable(dir))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !is_note(&name) {
            // A file that is gone by now was a lease that is released.
            rows.extend(row(&path, name)?);
        }
    }
    rows.sort_by(|a, b| (a.address, &a.name).cmp(&(b.address, &b.name)));
    Ok(rows)
}

fn is_note(name: &str) -> bool {
    name == "lock" || name.starts_with("last_reserved_ip.")
}

fn row(path: &Path, name: String) -> Result<Option<Row>, ImportError> {
    let unclear = |why: &str| Word::Unclear(why.to_owned());
    let (address, word) = match name.parse() {
        Ok(IpAddr::V4(address)) => match content(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            content => {
                (Some(address), content.map_err(unreadable(path))?.map_or_else(Word::Unclear, |text| parse(&text)))
            }
        },
        Ok(IpAddr::V6(_)) => (None, unclear("an IPv6 address, which dupip does not lease")),
        Err(_) => (None, unclear("the file is not called after an address")),
    };
    Ok(Some(Row { name, address, word }))
}

/// The file's text, or why it cannot be a lease.
fn content(path: &Path) -> io::Result<Result<String, String>> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Ok(Err("a link, not a file".to_owned())),
        file => file?,
    };
    if file.metadata()?.is_file() { text(file) } else { Ok(Err("not a file".to_owned())) }
}

pub(super) fn text(file: impl Read) -> io::Result<Result<String, String>> {
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LONGEST {
        return Ok(Err(format!("longer than {LONGEST} bytes")));
    }
    Ok(String::from_utf8(bytes).map_err(|_| "no text".to_owned()))
}

pub(super) fn parse(text: &str) -> Word {
    let mut lines = text.trim_end().lines().map(str::trim);
    match (lines.next().filter(|line| !line.is_empty()), lines.next(), lines.next()) {
        (None, ..) => {
            Word::Unclear("an empty file: host-local was killed before it wrote whose the address is".to_owned())
        }
        (.., Some(_)) => Word::Unclear("more than a container's id and an interface".to_owned()),
        (Some(id), interface, None) => held(id, interface).unwrap_or_else(Word::Unclear),
    }
}

fn held(id: &str, interface: Option<&str>) -> Result<Word, String> {
    let owner = id.parse().map_err(|error: InvalidOwner| error.to_string())?;
    let interface = interface.map(str::parse).transpose().map_err(|error: InvalidName| error.to_string())?;
    Ok(Word::Owner { owner, interface })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(id: &str, interface: Option<&str>) -> Word {
        Word::Owner { owner: id.parse().unwrap(), interface: interface.map(|name| name.parse().unwrap()) }
    }

    #[test]
    fn a_file_names_the_container_and_in_newer_ones_the_interface() {
        assert_eq!(parse("4f6b0d2c8a1e\r\neth0"), owner("4f6b0d2c8a1e", Some("eth0")));
        assert_eq!(parse("4f6b0d2c8a1e\neth0\n"), owner("4f6b0d2c8a1e", Some("eth0")));
        assert_eq!(parse("4f6b0d2c8a1e"), owner("4f6b0d2c8a1e", None));
        assert_eq!(parse("4f6b0d2c8a1e\r\n"), owner("4f6b0d2c8a1e", None));
    }

    #[test]
    fn what_names_nobody_says_why() {
        let bad = ["", "\r\n", "\r\neth0", "a b\r\neth0", "a\r\nan-interface-with-a-long-name", "a\nb\nc", "a\u{7}"];
        for text in bad {
            assert!(matches!(parse(text), Word::Unclear(_)), "{text:?}");
        }
        assert!(matches!(parse(""), Word::Unclear(why) if why.starts_with("an empty file")));
    }

    #[test]
    fn a_directory_is_read_by_address_and_without_its_notes() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &[u8]| fs::write(dir.path().join(name), text).unwrap();
        write("10.8.64.10", b"ten\r\neth0");
        write("10.8.64.9", b"nine");
        write("last_reserved_ip.0", b"10.8.64.10");
        write("lock", b"");
        write("fd00::2", b"six\r\neth0");
        write("readme", b"");
        write("10.8.64.11", &[0xff; 8]);
        write("10.8.64.12", &[b'a'; 4096]);
        fs::create_dir(dir.path().join("10.8.64.13")).unwrap();
        std::os::unix::fs::symlink("10.8.64.9", dir.path().join("10.8.64.14")).unwrap();
        let rows = host_local(dir.path()).unwrap();
        let names: Vec<_> = rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(
            names,
            ["fd00::2", "readme", "10.8.64.9", "10.8.64.10", "10.8.64.11", "10.8.64.12", "10.8.64.13", "10.8.64.14"]
        );
        let words: Vec<_> = rows.into_iter().map(|row| row.word).collect();
        assert_eq!(words.get(2..4), Some(&[owner("nine", None), owner("ten", Some("eth0"))][..]));
        assert_eq!(words.iter().filter(|word| matches!(word, Word::Unclear(_))).count(), 6, "{words:?}");
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error() {
        let error = host_local(Path::new("/nowhere/at/all")).unwrap_err();
        assert!(error.to_string().starts_with("cannot read /nowhere/at/all: "), "{error}");
    }
}
