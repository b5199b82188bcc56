//! What makes a Rust compiler fit to compile eBPF programs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{rust, version::Version};
use crate::shell;

/// The newest LLVM whose bitcode the `bpf-linker` we install can read.
const NEWEST_LLVM: u32 = 22;

/// A Rust compiler, as it describes itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Compiler {
    pub sysroot: PathBuf,
    pub is_nightly: bool,
    release: Version,
    llvm: Version,
    host: String,
}

/// Why a compiler does not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// A nightly can build `core` for eBPF, from sources that are not there.
    NoSource,
    /// Anything else, in words.
    Other(String),
}

impl Compiler {
    /// Asks the compiler that these words start.
    ///
    /// # Errors
    /// It does not start, or says what no rustc says.
    pub(super) fn ask(words: &[&str]) -> Result<Self> {
        let (program, arguments) = words.split_first().context("no compiler to ask")?;
        let read = |question: &[&str]| {
            let mut rustc = shell::command(program, [arguments, question].concat());
            shell::read(rustc.env("RUSTUP_AUTO_INSTALL", "0"))
        };
        let (verbose, sysroot) = (read(&["-vV"])?, read(&["--print", "sysroot"])?);
        Self::parse(&verbose, &sysroot).with_context(|| format!("`{}` does not speak as rustc does", words.join(" ")))
    }

    /// From the output of `rustc -vV` and `rustc --print sysroot`.
    fn parse(verbose: &str, sysroot: &str) -> Option<Self> {
        let field = |name: &str| verbose.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let release = field("release:")?;
        Some(Self {
            sysroot: PathBuf::from(sysroot),
            is_nightly: release.ends_with("-nightly"),
            release: Version::find(release)?,
            llvm: Version::find(field("LLVM version:")?)?,
            host: field("host:")?.to_owned(),
        })
    }

    /// Whether it can compile the eBPF programs, and our linker link what it writes.
    pub(super) fn check(&self) -> Result<(), Unfit> {
        let other = |words: String| Err(Unfit::Other(words));
        if Version::find(rust::OLDEST).is_none_or(|oldest| self.release < oldest) {
            return other(format!("rustc {} is older than {}", self.release, rust::OLDEST));
        }
        if self.llvm.0 > NEWEST_LLVM {
            return other(format!("its LLVM {} is newer than the {NEWEST_LLVM} that bpf-linker reads", self.llvm));
        }
        if self.llvm_library().is_none() {
            return other(format!("it has no libLLVM of its own in {}", self.sysroot.join("lib").display()));
        }
        match self.is_nightly {
            true if !self.rustlib("src/rust/library/core").exists() => Err(Unfit::NoSource),
            false if !self.rustlib("bpfel-unknown-none").exists() => {
                other("it has no core for bpfel-unknown-none".into())
            }
            _ => Ok(()),
        }
    }

    fn rustlib(&self, path: &str) -> PathBuf {
        self.sysroot.join("lib/rustlib").join(path)
    }

    /// The shared LLVM that the compiler itself runs on: `libLLVM.so.22.1-rust-1.97.0-nightly` in a toolchain of rustup,
    /// `libLLVM.so.22.1` in Debian's folder for the architecture.
    pub(super) fn llvm_library(&self) -> Option<PathBuf> {
        let lib = self.sysroot.join("lib");
        let architecture = self.host.split('-').next()?;
        let start = format!("libLLVM.so.{}.{}", self.llvm.0, self.llvm.1);
        [lib.join(format!("{architecture}-linux-gnu")), lib].iter().find_map(|folder| starting_with(folder, &start))
    }
}

/// The first file of the folder whose name starts so.
fn starting_with(folder: &Path, start: &str) -> Option<PathBuf> {
    let names = fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    names.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start))).min()
}

impl std::fmt::Display for Compiler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let core = if self.is_nightly {
            "a nightly that builds core from rust-src"
        } else {
            "the distribution's, with core prebuilt"
        };
        write!(f, "rustc {} on LLVM {}, {core}", self.release, self.llvm)
    }
}

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoSource => f.write_str("it has no rust-src"),
            Self::Other(words) => f.write_str(words),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A compiler whose sysroot holds just these files.
    fn compiler(release: &str, llvm: &str, files: &[&str]) -> (tempfile::TempDir, Compiler) {
        let sysroot = tempfile::tempdir().unwrap();
        for file in files {
            let file = sysroot.path().join("lib").join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
        }
        let verbose =
            format!("rustc {release}\nhost: x86_64-unknown-linux-gnu\nrelease: {release}\nLLVM version: {llvm}");
        let compiler = Compiler::parse(&verbose, sysroot.path().to_str().unwrap()).unwrap();
        (sysroot, compiler)
    }

    #[test]
    fn a_nightly_with_sources_does() {
        let files = ["libLLVM.so.22.1-rust-1.97.0-nightly", "rustlib/src/rust/library/core/Cargo.toml"];
        let (_sysroot, nightly) = compiler("1.97.0-nightly", "22.1.4", &files);
        assert_eq!(nightly.check(), Ok(()));
    }

    #[test]
    fn a_nightly_without_sources_is_told_from_one_that_cannot_do() {
        let (_sysroot, nightly) = compiler("1.97.0-nightly", "22.1.4", &["libLLVM.so.22.1-rust-1.97.0-nightly"]);
        assert_eq!(nightly.check(), Err(Unfit::NoSource));
        let (_sysroot, newer) = compiler("1.99.0-nightly", "23.1.1", &["libLLVM.so.23.1-rust-1.99.0-nightly"]);
        assert!(newer.check().unwrap_err().to_string().contains("newer than the 22"));
    }

    #[test]
    fn debians_compiler_does_with_a_prebuilt_core() {
        let files = ["x86_64-linux-gnu/libLLVM.so.22.1", "rustlib/bpfel-unknown-none/lib/libcore.rlib"];
        let (sysroot, debian) = compiler("1.96.0", "22.1.8", &files);
        assert_eq!(debian.check(), Ok(()));
        assert_eq!(debian.llvm_library(), Some(sysroot.path().join("lib/x86_64-linux-gnu/libLLVM.so.22.1")));
    }

    #[test]
    fn a_compiler_without_core_for_ebpf_or_too_old_does_not() {
        let (_sysroot, stable) = compiler("1.95.0", "22.1.2", &["libLLVM.so.22.1-rust-1.95.0-stable"]);
        assert!(stable.check().unwrap_err().to_string().contains("no core for bpfel"));
        let (_sysroot, old) = compiler("1.63.0", "14.0.6", &["x86_64-linux-gnu/libLLVM.so.14.0"]);
        assert!(old.check().unwrap_err().to_string().contains("older than 1.95"));
    }

    #[test]
    fn what_is_no_compiler_is_refused() {
        assert!(Compiler::ask(&["echo"]).is_err());
        assert!(Compiler::ask(&["no-program-has-this-name"]).is_err());
    }
}
