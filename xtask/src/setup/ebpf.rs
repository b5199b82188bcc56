//! The compiler for eBPF: a toolchain of rustup named `dupip-bpf`, which `detector/build.rs` asks for by that name.
//!
//! It is a folder of two small scripts that start the real compiler, whichever it is, with the environment it needs and
//! nothing else on the machine should have:
//!
//! - `LD_LIBRARY_PATH`: bpf-linker loads the first libLLVM that it finds there, and can only read the bitcode that this
//!   very LLVM or a newer one wrote; that of the compiler that builds the agent may be too new for bpf-linker itself.
//! - `RUSTC`: cargo would else ask the first rustc on PATH where the sources of `core` are.
//! - `CARGO_TERM_QUIET`: aya-build repeats each line of the inner cargo as a warning of the outer one. What the compiler
//!   warns about takes another way and is still seen.
//! - `RUSTC_BOOTSTRAP`, with a compiler that is no nightly: aya-ebpf uses unstable features.

use std::{
    env, fs,
    io::ErrorKind,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail};

use super::{
    apt,
    compiler::{Compiler, Unfit},
};
use crate::shell;

const NAME: &str = "dupip-bpf";

/// The nightly that is installed when there is none that does. Newer ones have an LLVM that bpf-linker cannot read.
const PINNED: &str = "nightly-2026-05-20";

/// Debian 12 and 13: a compiler that is new enough, with `core` for eBPF.
const PACKAGES: [&str; 4] = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf", "rust-web-src"];

pub(super) fn ready() -> Result<String> {
    let folder = folder()?;
    if let Some(compiler) = linked(&folder) {
        let state = if lay_out(&folder, &compiler)? { "its scripts brought up to date" } else { "nothing to do" };
        return Ok(format!("{compiler}; {state}"));
    }
    let compiler = find()?;
    lay_out(&folder, &compiler)?;
    link(&folder)?;
    let compiler = linked(&folder).with_context(|| format!("toolchain {NAME} is linked, and does not run"))?;
    Ok(format!("{compiler}; just linked as toolchain {NAME}"))
}

/// The toolchain's folder, which stays when the clone goes.
fn folder() -> Result<PathBuf> {
    let data = env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || env::var_os("HOME").map(|home| Path::new(&home).join(".local/share"));
    let data =
        data.or_else(home).context("neither XDG_DATA_HOME nor HOME is set, so there is no place for a toolchain")?;
    Ok(data.join("dupip/bpf-toolchain"))
}

/// The compiler behind the toolchain, if rustup's toolchain of our name is this folder, and the compiler does.
fn linked(folder: &Path) -> Option<Compiler> {
    let rustc = shell::read(&mut shell::command("rustup", ["which", "--toolchain", NAME, "rustc"])).ok()?;
    let is_ours = fs::canonicalize(rustc).ok()? == fs::canonicalize(folder.join("bin/rustc")).ok()?;
    let compiler = Compiler::ask(&["rustup", "run", NAME, "rustc"]).ok()?;
    (is_ours && compiler.check().is_ok()).then_some(compiler)
}

fn link(folder: &Path) -> Result<()> {
    let mut rustup = shell::command("rustup", ["toolchain", "link", NAME]);
    shell::step("the agent's build asks rustup for this name", rustup.arg(folder))
}

/// A compiler that does: a nightly of rustup, the usual way, or else the distribution's.
fn find() -> Result<Compiler> {
    let first = match nightly() {
        Ok(compiler) => return Ok(compiler),
        Err(error) => error,
    };
    eprintln!("       way 1, a nightly with rust-src, is not to be had: {first:#}");
    eprintln!("       way 2, packages of the distribution: {}", PACKAGES.join(" "));
    distribution().map_err(|second| {
        anyhow!(
            "no compiler for eBPF: not from rustup ({first:#}), not from packages ({second:#}); when rustup's server can \
             be reached, run: rustup toolchain install {PINNED} --profile minimal --component rust-src"
        )
    })
}

/// Way 1. What is installed is preferred to what must be fetched.
fn nightly() -> Result<Compiler> {
    for toolchain in ["nightly", PINNED] {
        let Ok(compiler) = Compiler::ask(&["rustup", "run", toolchain, "rustc"]) else { continue };
        match compiler.check() {
            Ok(()) => return Ok(compiler),
            Err(Unfit::NoSource) => return with_source(toolchain),
            Err(unfit) => eprintln!("       toolchain {toolchain} does not do: {unfit}"),
        }
    }
    let install =
        ["toolchain", "install", PINNED, "--profile", "minimal", "--component", "rust-src", "--no-self-update"];
    fetch("no nightly that does is installed, and only a nightly builds core for eBPF", &install)?;
    fit(&["rustup", "run", PINNED, "rustc"])
}

fn with_source(toolchain: &str) -> Result<Compiler> {
    let add = ["component", "add", "rust-src", "--toolchain", toolchain];
    fetch(&format!("{toolchain} builds core for eBPF from its sources, which are missing"), &add)?;
    fit(&["rustup", "run", toolchain, "rustc"])
}

/// Has rustup download something. One retry and an end, so that a network without its server is found out soon.
fn fetch(why: &str, arguments: &[&str]) -> Result<()> {
    let mut rustup = shell::command("timeout", [&["600", "rustup"], arguments].concat());
    rustup.envs([("RUSTUP_MAX_RETRIES", "1"), ("RUSTUP_DOWNLOAD_TIMEOUT", "30"), ("RUST_BACKTRACE", "0")]);
    shell::step(why, &mut rustup)
}

/// Way 2. Another rustc may stand first on PATH, so the package is asked where its own is.
fn distribution() -> Result<Compiler> {
    let package_files = || shell::read(&mut shell::command("dpkg", ["--listfiles", PACKAGES[0]]));
    let installed = package_files().and_then(|files| packaged(&files));
    if installed.is_ok() {
        return installed;
    }
    anyhow::ensure!(apt::is_here(), "this system has no apt-get");
    apt::install("a compiler with core for eBPF, and what goes with it", &PACKAGES)?;
    packaged(&package_files()?)
}

/// The compiler among the files of its package.
fn packaged(files: &str) -> Result<Compiler> {
    let rustc = files.lines().find(|file| file.ends_with("/bin/rustc"));
    fit(&[rustc.with_context(|| format!("package {} has no rustc", PACKAGES[0]))?])
}

fn fit(words: &[&str]) -> Result<Compiler> {
    let compiler = Compiler::ask(words)?;
    match compiler.check() {
        Ok(()) => Ok(compiler),
        Err(unfit) => bail!("`{}` does not do: {unfit}", words.join(" ")),
    }
}

/// Writes the toolchain's folder; says whether anything had to be changed.
fn lay_out(folder: &Path, compiler: &Compiler) -> Result<bool> {
    let (bin, lib) = (folder.join("bin"), folder.join("lib"));
    let llvm = compiler.llvm_library().context("the compiler's LLVM is gone")?;
    let changed = || -> std::io::Result<bool> {
        fs::create_dir_all(&bin)?;
        fs::create_dir_all(&lib)?;
        let mut changed = put_link(&lib.join("libLLVM.so"), &llvm)?;
        for program in ["cargo", "rustc"] {
            changed |= put_script(&bin.join(program), &script(program, compiler, &lib))?;
        }
        Ok(changed)
    };
    changed().with_context(|| format!("cannot write the toolchain's folder {}", folder.display()))
}

fn script(program: &str, compiler: &Compiler, lib: &Path) -> String {
    let bin = compiler.sysroot.join("bin");
    let bootstrap = if compiler.is_nightly { "" } else { "export RUSTC_BOOTSTRAP=1\n" };
    format!(
        "#!/bin/sh\n\
         # Made by `cargo xtask setup` of dupip: the compiler of its eBPF programs, for rustup.\n\
         export LD_LIBRARY_PATH={} RUSTC={} CARGO_TERM_QUIET=true\n\
         unset CARGO_TERM_VERBOSE\n\
         {bootstrap}\
         exec {} \"$@\"\n",
        quoted(lib),
        quoted(&bin.join("rustc")),
        quoted(&bin.join(program)),
    )
}

/// The path as one word for the shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"))
}

/// Another build may be running the script: it gets the old one or the new one, never half of one.
fn put_script(file: &Path, content: &str) -> std::io::Result<bool> {
    if fs::read_to_string(file).is_ok_and(|old| old == content) {
        return Ok(false);
    }
    let new = file.with_extension("new");
    fs::write(&new, content)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
    fs::rename(new, file)?;
    Ok(true)
}

fn put_link(file: &Path, target: &Path) -> std::io::Result<bool> {
    if fs::read_link(file).is_ok_and(|old| old == target) {
        return Ok(false);
    }
    let new = file.with_extension("new");
    fs::remove_file(&new).or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })?;
    symlink(target, &new)?;
    fs::rename(new, file)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_written_once_and_runs() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("it's a tool");
        assert!(put_script(&file, "#!/bin/sh\necho \"$1\"\n").unwrap());
        assert!(!put_script(&file, "#!/bin/sh\necho \"$1\"\n").unwrap());
        assert_eq!(shell::read(&mut shell::command(&file, ["said"])).unwrap(), "said");
        let through_shell = format!("{} said", quoted(&file));
        assert_eq!(shell::read(&mut shell::command("sh", ["-c", &through_shell])).unwrap(), "said");
    }

    #[test]
    fn a_link_follows_its_target() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("libLLVM.so");
        assert!(put_link(&file, Path::new("/old")).unwrap());
        assert!(!put_link(&file, Path::new("/old")).unwrap());
        assert!(put_link(&file, Path::new("/new")).unwrap());
        assert_eq!(fs::read_link(&file).unwrap(), Path::new("/new"));
    }

    #[test]
    fn a_package_without_a_fit_compiler_is_refused() {
        assert!(packaged("/.\n/usr/bin/rustdoc").unwrap_err().to_string().contains("has no rustc"));
        assert!(packaged("/nowhere/bin/rustc").is_err());
    }
}
