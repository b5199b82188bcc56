//! A clean root of the Debian that this machine runs, so that what was built here runs there, too.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// Where clean roots are kept. They belong to root, so they are not in Cargo's folder, which its owner must be able to clean.
const FOLDER: &str = "/var/cache/dupip-tests";
/// What a clean root has besides what is essential.
const PACKAGES: &str = "passwd,systemd";
/// Where apt is told where packages are (sources.list(5)).
const APT: &str = "/etc/apt";

/// Makes the root `$1`, of the release `$2`, out of the packages `$3`; what follows are sources of apt. Elsewhere first:
/// what was not finished has another name.
const RECIPE: &str = r#"
set -e
root=$1 release=$2 packages=$3
shift 3
mkdir -p "${root%/*}"
new=$(mktemp -d "$root.XXXXXX")
trap 'rm -rf "$new"' EXIT
chmod 755 "$new"
mmdebstrap --quiet --mode=root --variant=essential --include "$packages" "$release" "$new" "$@"
[ -d "$root" ] || mv -T "$new" "$root"
"#;

/// A root with nothing but what every Debian has, and systemd. It is made once, and only read from then on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CleanRoot {
    release: String,
    path: PathBuf,
}

impl CleanRoot {
    /// The one for this machine, made or not.
    ///
    /// # Errors
    /// If the machine does not say which release it runs.
    pub fn of_this_machine() -> Result<Self> {
        let release = release()?;
        let path = Path::new(FOLDER).join(format!("{release}+{}", PACKAGES.replace(',', "+")));
        Ok(Self { release, path })
    }

    /// Where it is, once it is made.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is there.
    #[must_use]
    pub fn is_made(&self) -> bool {
        self.path.is_dir()
    }

    /// The program and its arguments that make it, to be run by root. It takes what it needs from where this machine takes
    /// its packages.
    ///
    /// # Errors
    /// If what apt is told cannot be read.
    pub fn recipe(&self) -> Result<Vec<String>> {
        let path = self.path.display().to_string();
        let words = ["sh", "-c", RECIPE, "sh", &path, &self.release, PACKAGES];
        Ok(words.into_iter().map(str::to_owned).chain(sources(Path::new(APT))?).collect())
    }
}

/// The code name of this machine's release, such as `bookworm` (os-release(5)).
fn release() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("this system does not say which one it is")?;
    let name = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    name.map(|name| name.trim_matches('"').to_owned()).context("/etc/os-release has no VERSION_CODENAME")
}

/// The files below `apt` that name a source, in either form, as mmdebstrap takes them for MIRROR. One that names none would
/// have it take the public default instead.
fn sources(apt: &Path) -> Result<Vec<String>> {
    let mut files = vec![apt.join("sources.list")];
    for entry in fs::read_dir(apt.join("sources.list.d")).into_iter().flatten() {
        files.push(entry?.path());
    }
    files.retain(|file| names_a_source(file));
    files.sort();
    Ok(files.iter().map(|file| file.display().to_string()).collect())
}

fn names_a_source(file: &Path) -> bool {
    let starts: &[&str] = match file.extension().and_then(|ending| ending.to_str()) {
        Some("list") => &["deb ", "deb\t"],
        Some("sources") => &["Types:"],
        _ => return false,
    };
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().any(|line| starts.iter().any(|start| line.trim_start().starts_with(start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_of_either_form_are_taken_and_what_names_none_is_not() {
        let apt = tempfile::tempdir().unwrap();
        fs::create_dir(apt.path().join("sources.list.d")).unwrap();
        for (name, text) in [
            ("sources.list", "# Ubuntu sources have moved\n"),
            ("sources.list.d/debian.sources", "# from an image\nTypes: deb\nURIs: http://mirror.example/debian\n"),
            ("sources.list.d/own.list", "# deb http://old.example x main\ndeb http://own.example x main\n"),
            ("sources.list.d/off.list.disabled", "deb http://off.example x main\n"),
            ("sources.list.d/empty.sources", "\n"),
        ] {
            fs::write(apt.path().join(name), text).unwrap();
        }
        let below = apt.path().join("sources.list.d");
        let want = ["debian.sources", "own.list"].map(|name| below.join(name).display().to_string());
        assert_eq!(sources(apt.path()).unwrap(), want);
    }
}
