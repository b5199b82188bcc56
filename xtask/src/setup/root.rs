//! A clean root of this machine's Debian, into which the tests install the package.

use anyhow::{Context as _, Result};
use lab::CleanRoot;

use crate::shell;

pub(super) fn ready() -> Result<String> {
    let root = CleanRoot::of_this_machine()?;
    let path = root.path().display();
    if root.is_made() {
        return Ok(format!("{path} is there, nothing to do"));
    }
    let recipe = root.recipe()?;
    let words: Vec<_> = recipe.iter().map(String::as_str).collect();
    let (program, args) = words.split_first().context("a recipe without a program")?;
    let mut make = shell::as_root(program, args).context("a clean root is to be made, and there is no sudo")?;
    shell::step("the tests install the package into a clean root. Takes a minute", &mut make)?;
    Ok(format!("{path}, just made"))
}
