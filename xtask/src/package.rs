//! `cargo xtask package`: the Debian package, which cargo-deb puts together as `detector/Cargo.toml` says
//! (`[package.metadata.deb]`). What the package has besides the program is written here first, by the program itself.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;

use crate::{
    build,
    setup::{self, Purpose},
    shell,
};

/// Where what goes into the package is written, from the workspace.
const PARTS: &str = "target/package";

/// The shells, and what their completions are called.
const SHELLS: [(&str, &str); 3] = [("bash", "dupip.bash"), ("zsh", "_dupip"), ("fish", "dupip.fish")];

/// What `cargo xtask package` is told.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How the program is built: as it is shipped, or as it is tested, which is much faster
    #[arg(long, default_value = "release")]
    profile: Profile,
}

/// How the program is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    /// As it is tested; the package has another name, and the folder target/debian-dev
    Dev,
    /// As it is shipped
    Release,
}

impl Profile {
    /// Where the package goes, from the workspace: nobody shall ship the one that was made for a test.
    const fn folder(self) -> &'static str {
        match self {
            Self::Dev => "target/debian-dev/",
            Self::Release => "target/debian/",
        }
    }

    /// Debian's revision of the version. `1~dev` is older than `1` (deb-version(7)): what is shipped replaces what was tested.
    const fn revision(self) -> &'static str {
        match self {
            Self::Dev => "1~dev",
            Self::Release => "1",
        }
    }
}

/// Makes the package and prints where it is.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    setup::ready(Purpose::Package)?;
    println!("{}", make(args.profile)?.display());
    Ok(ExitCode::SUCCESS)
}

/// Builds the program, has it write its pages and completions, and packs them.
pub(crate) fn make(profile: Profile) -> Result<PathBuf> {
    let dupip = match profile {
        Profile::Dev => build::dupip()?,
        Profile::Release => build::shipped()?,
    };
    let parts = shell::workspace().join(PARTS);
    write_parts(&dupip, &parts, profile).with_context(|| format!("cannot write to {}", parts.display()))?;
    let mut pack = pack(profile);
    eprintln!("package: {}", shell::text(&pack));
    let said = shell::read(&mut pack)?;
    let deb = shell::workspace().join(said.lines().last().unwrap_or_default());
    ensure!(deb.is_file(), "cargo-deb has made a package and told no path: {said}");
    Ok(deb)
}

fn pack(profile: Profile) -> Command {
    let (name, haste) = match profile {
        Profile::Dev => ("dev", "--fast"),
        Profile::Release => ("release", "--locked"),
    };
    let (folder, revision) = (profile.folder(), profile.revision());
    let arguments = format!("deb --package detector --no-build --strip --profile {name} {haste}");
    let mut pack = shell::command("cargo", arguments.split(' '));
    pack.args(["--deb-revision", revision, "--output", folder]);
    pack
}

/// Writes everything anew: what an earlier version had is not to be packed.
fn write_parts(dupip: &Path, parts: &Path, profile: Profile) -> Result<()> {
    if parts.exists() {
        fs::remove_dir_all(parts)?;
    }
    fs::create_dir_all(parts)?;
    let man = parts.join("man");
    shell::read(shell::command(dupip, ["man", "--dir"]).arg(&man))?;
    for (name, file) in SHELLS {
        let script = shell::read(&mut shell::command(dupip, ["completions", name]))?;
        fs::write(parts.join(file), script + "\n")?;
    }
    let config = shell::read(&mut shell::command(dupip, ["config", "default"]))?;
    fs::write(parts.join("dupip.toml"), config + "\n")?;
    fs::write(parts.join("changelog"), changelog(profile)?)?;
    Ok(())
}

/// The changelog in Debian's form (deb-changelog(5)), as old as ours.
fn changelog(profile: Profile) -> Result<String> {
    let date = shell::read(&mut shell::command("date", ["-R", "-r", "detector/CHANGELOG.md"]))?;
    let (version, revision, maintainer) = (env!("CARGO_PKG_VERSION"), profile.revision(), maintainer()?);
    Ok(format!(
        "dupip ({version}-{revision}) unstable; urgency=medium\n\n  * What is new stands in the project's own changelog.\n\n -- {maintainer}  {date}\n"
    ))
}

/// Whom the package names; written once, where cargo-deb reads it.
fn maintainer() -> Result<String> {
    let manifest = fs::read_to_string(shell::workspace().join("detector/Cargo.toml"))?;
    let named = manifest.lines().find_map(|line| line.strip_prefix("maintainer = \"")?.strip_suffix('"'));
    named.map(str::to_owned).context("detector/Cargo.toml names no maintainer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_can_read_the_changelog() {
        let parse = "dpkg-parsechangelog";
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), changelog(Profile::Dev).unwrap()).unwrap();
        let read = |field: &str| {
            shell::read(shell::command(parse, ["--show-field", field, "--file"]).arg(file.path())).unwrap()
        };
        assert_eq!(read("Source"), "dupip");
        assert_eq!(read("Version"), format!("{}-1~dev", env!("CARGO_PKG_VERSION")));
        assert_eq!(read("Maintainer"), maintainer().unwrap());
    }

    #[test]
    fn what_is_tested_is_packed_in_haste_and_elsewhere() {
        let words = |profile| shell::text(&pack(profile));
        assert!(words(Profile::Dev).contains("--profile dev --fast"));
        assert!(words(Profile::Dev).ends_with("--deb-revision 1~dev --output target/debian-dev/"));
        assert!(!words(Profile::Release).contains("--fast"));
        assert!(words(Profile::Release).ends_with("--deb-revision 1 --output target/debian/"));
    }
}
