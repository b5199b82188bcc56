//! `cargo-deb`: puts the Debian package together.

use anyhow::Result;

use super::{from_cargo::Program, version::Version};

const PACKAGER: Program = Program {
    name: "cargo-deb",
    oldest: Version(3, 8, 0),
    why: "makes the Debian package, which a test installs. Takes a minute or two",
};

pub(super) fn ready() -> Result<String> {
    PACKAGER.ready()
}
