//! Packages of the Debian family.

use std::{process::Command, sync::Once};

use anyhow::{Context as _, Result, anyhow};

use crate::shell;

/// Nothing is removed to make room: a package that clashes with what a person has chosen is refused instead.
const INSTALL: &str = "apt-get install --yes --no-install-recommends --no-remove";

/// Whether this system has apt at all.
pub(super) fn is_here() -> bool {
    shell::find("apt-get").is_some()
}

/// Installs the packages, after one refresh of the package lists per run of xtask.
///
/// # Errors
/// We are neither root nor have sudo, or apt refused; with the command to run by hand.
pub(super) fn install(why: &str, packages: &[&str]) -> Result<()> {
    static REFRESH: Once = Once::new();
    let by_hand = format!("apt-get install --no-install-recommends {}", packages.join(" "));
    let mut install = apt(&format!("{INSTALL} {}", packages.join(" "))).with_context(|| {
        format!("packages are missing, we are not root, and there is no sudo; as root, run: {by_hand}")
    })?;
    REFRESH.call_once(refresh);
    shell::step(why, &mut install).map_err(|error| anyhow!("{error:#}; run: sudo {by_hand}"))
}

/// Lists that cannot be refreshed may still be good enough, so a failure is said and no more.
fn refresh() {
    let why = "packages are to be installed, so their lists are brought up to date";
    let update = apt("apt-get update --quiet").map(|mut update| shell::step(why, &mut update));
    if let Some(Err(error)) = update {
        eprintln!("       going on with the package lists as they are: {error:#}");
    }
}

/// Debconf must not ask: nobody may be there to answer.
fn apt(words: &str) -> Option<Command> {
    let arguments: Vec<_> = ["DEBIAN_FRONTEND=noninteractive"].into_iter().chain(words.split(' ')).collect();
    shell::as_root("env", &arguments)
}
