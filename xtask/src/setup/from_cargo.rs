//! Programs that cargo builds and installs.

use anyhow::{Context as _, Result, ensure};

use super::version::Version;
use crate::shell;

/// A program of that name in cargo's usual registry, the oldest release that will do, and what it is for.
pub(super) struct Program {
    pub(super) name: &'static str,
    pub(super) oldest: Version,
    pub(super) why: &'static str,
}

impl Program {
    pub(super) fn ready(&self) -> Result<String> {
        let Self { name, oldest, why } = self;
        if let Some(version) = self.installed().filter(|version| version >= oldest) {
            return Ok(format!("{version}, nothing to do"));
        }
        let arguments = format!("install {name} --version {oldest} --locked");
        shell::step(why, &mut shell::command("cargo", arguments.split(' ')))
            .with_context(|| format!("{name} is not installed; run: cargo {arguments}"))?;
        let version = self
            .installed()
            .with_context(|| format!("{name} is installed and not found: put cargo's `bin` folder on your PATH"))?;
        ensure!(version >= *oldest, "another {name}, {version}, stands before the new one on your PATH; remove it");
        Ok(format!("{version}, just installed"))
    }

    fn installed(&self) -> Option<Version> {
        Version::find(&shell::read(&mut shell::command(self.name, ["--version"])).ok()?)
    }
}
