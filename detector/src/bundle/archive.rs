//! The archive: parts as files of a compressed tar, with a list of them.

use std::{
    fs::Permissions,
    io::{self, Write},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use flate2::{Compression, write::GzEncoder};
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use tar::{Builder, Header};
use tempfile::NamedTempFile;

use super::{LEFT_OUT, LONGEST, Part, pseudonyms::Pseudonyms};

/// The folder that everything is in.
const FOLDER: &str = "dupip-support";
/// Who may read it: whoever made it.
const MODE: u32 = 0o600;

/// What is in an archive, as `manifest.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of the program that made it.
    pub version: String,
    /// When, by the wall clock.
    pub time: String,
    /// Whether addresses and names were replaced.
    pub redacted: bool,
    /// Its files, but for this one.
    pub files: Vec<Listed>,
    /// What is not in it.
    pub left_out: Vec<String>,
}

/// A file of an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Its path below the archive's folder.
    pub name: String,
    /// What it is.
    pub about: String,
    /// Whether it has only the beginning.
    pub truncated: bool,
    /// Why what it is about is not there; it says so itself then.
    pub missing: Option<String>,
    /// How long it is, in bytes.
    pub bytes: usize,
    /// Its hash, in hexadecimal digits.
    pub sha256: String,
}

/// An archive that was written.
#[derive(Clone, Debug)]
pub struct Written {
    /// Where.
    pub file: PathBuf,
    /// How long it is, in bytes.
    pub bytes: u64,
    /// What is in it.
    pub manifest: Manifest,
}

/// An archive that is being written.
pub(super) struct Archive<W: Write> {
    tar: Builder<GzEncoder<W>>,
    files: Vec<Listed>,
    now: SystemTime,
}

impl Archive<NamedTempFile> {
    /// Writes an archive of `parts` to `file`, which is there as a whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn write(file: &Path, parts: Vec<Part>, pseudonyms: Option<&Pseudonyms>) -> io::Result<Written> {
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let draft = tempfile::Builder::new().permissions(Permissions::from_mode(MODE)).tempfile_in(folder)?;
        let gzip = GzEncoder::new(draft, Compression::default());
        let mut archive = Self { tar: Builder::new(gzip), files: Vec::new(), now: SystemTime::now() };
        for part in parts {
            archive.add(part, pseudonyms)?;
        }
        let manifest = archive.manifest(pseudonyms.is_some());
        archive.put("manifest.json", &serde_json::to_vec_pretty(&manifest)?)?;
        let draft = archive.tar.into_inner()?.finish()?;
        draft.as_file().sync_all()?;
        let bytes = draft.as_file().metadata()?.len();
        draft.persist(file)?;
        Ok(Written { file: file.to_owned(), bytes, manifest })
    }
}

impl<W: Write> Archive<W> {
    fn add(&mut self, part: Part, pseudonyms: Option<&Pseudonyms>) -> io::Result<()> {
        let Part { name, about, content } = part;
        let replaced = |bytes: Vec<u8>| match pseudonyms {
            Some(pseudonyms) => pseudonyms.replace(&bytes),
            None => bytes,
        };
        let (name, mut content, missing) = match content {
            Ok(content) => (name, replaced(content), None),
            Err(why) => {
                let why = String::from_utf8_lossy(&replaced(why.into_bytes())).into_owned();
                (format!("{name}.missing"), format!("{about}: not there: {why}\n").into_bytes(), Some(why))
            }
        };
        let truncated = content.len() > LONGEST;
        content.truncate(LONGEST);
        self.put(&name, &content)?;
        let (bytes, sha256) = (content.len(), hex(digest(&SHA256, &content).as_ref()));
        self.files.push(Listed { name, about: about.to_owned(), truncated, missing, bytes, sha256 });
        Ok(())
    }

    fn put(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(MODE);
        header.set_mtime(self.now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs());
        self.tar.append_data(&mut header, Path::new(FOLDER).join(name), content)
    }

    fn manifest(&self, redacted: bool) -> Manifest {
        Manifest {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            time: humantime::format_rfc3339_seconds(self.now).to_string(),
            redacted,
            files: self.files.clone(),
            left_out: LEFT_OUT.map(str::to_owned).into(),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, io::Read as _};

    use flate2::read::GzDecoder;

    use super::*;

    fn read(file: &Path) -> BTreeMap<String, Vec<u8>> {
        let mut tar = tar::Archive::new(GzDecoder::new(fs::File::open(file).unwrap()));
        let read = |entry: io::Result<tar::Entry<'_, GzDecoder<fs::File>>>| {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().to_string_lossy().into_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (name, content)
        };
        tar.entries().unwrap().map(read).collect()
    }

    #[test]
    fn what_is_there_and_what_is_not_is_listed_with_its_hash() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("b.tar.gz");
        let parts = vec![
            Part::new("a/b.txt", "something", Ok(b"words".to_vec())),
            Part::new("c.json", "nothing", Err("nobody knows".to_owned())),
            Part::new("long", "a long thing", Ok(vec![b'x'; LONGEST + 7])),
        ];
        let written = Archive::write(&file, parts, None).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, MODE);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no draft is left");
        let mut found = read(&file);
        let manifest: Manifest = serde_json::from_slice(&found.remove("dupip-support/manifest.json").unwrap()).unwrap();
        assert_eq!((&manifest, written.bytes), (&written.manifest, fs::metadata(&file).unwrap().len()));
        for listed in &manifest.files {
            let content = found.remove(&format!("dupip-support/{}", listed.name)).unwrap();
            assert_eq!((content.len(), hex(digest(&SHA256, &content).as_ref())), (listed.bytes, listed.sha256.clone()));
        }
        assert_eq!(found.len(), 0, "all is listed");
        let [there, not, long] = manifest.files.try_into().unwrap();
        assert_eq!(
            (there.missing, not.name.as_str(), not.missing.as_deref()),
            (None, "c.json.missing", Some("nobody knows"))
        );
        assert_eq!((long.truncated, long.bytes), (true, LONGEST));
    }

    #[test]
    fn an_archive_that_cannot_be_written_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("none/b.tar.gz");
        assert!(Archive::write(&file, Vec::new(), None).is_err());
        fs::create_dir(folder.path().join("taken")).unwrap();
        assert!(Archive::write(&folder.path().join("taken"), Vec::new(), None).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no draft is left");
    }
}
