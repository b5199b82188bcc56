//! The one way in which xtask runs other programs.
//!
//! What xtask says goes to standard error, and so does what the programs say that it runs as steps: standard output is
//! for what a verb was asked for.

use std::{
    env,
    ffi::OsStr,
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};

/// The folder of the workspace.
pub(crate) fn workspace() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

/// `program` with `args`, to be run in the workspace.
pub(crate) fn command<A: AsRef<OsStr>>(program: impl AsRef<OsStr>, args: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(program);
    command.args(args).current_dir(workspace());
    command
}

/// `program` with `args`, as root: through sudo unless we are root. None if there is no sudo.
pub(crate) fn as_root(program: &str, args: &[&str]) -> Option<Command> {
    if is_root() {
        return Some(command(program, args));
    }
    find("sudo").map(|_| command("sudo", [&[program], args].concat()))
}

/// The command as a person would type it.
pub(crate) fn text(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Runs the command to its end, with our own input and output.
///
/// # Errors
/// It could not be started.
pub(crate) fn status(command: &mut Command) -> Result<ExitStatus> {
    command.status().with_context(|| format!("cannot run `{}`", text(command)))
}

/// Runs a step that may take long: says why, what, and how long it took. All its output goes to standard error.
///
/// # Errors
/// It could not be started, or it failed.
pub(crate) fn step(why: &str, command: &mut Command) -> Result<()> {
    eprintln!("       {why}\n       $ {}", text(command));
    let start = Instant::now();
    let status = status(command.stdout(io::stderr()))?;
    let took = start.elapsed().as_secs_f32();
    ensure!(status.success(), "`{}` failed ({status}) after {took:.1} s", text(command));
    eprintln!("       done in {took:.1} s");
    Ok(())
}

/// What the command prints to standard output.
///
/// # Errors
/// It could not be started, or it failed: then with the last line it said.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run `{}`", text(command)))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    ensure!(output.status.success(), "`{}` failed: {last}", text(command));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Where the program stands. Looks into the folders of root too, which Debian leaves out of other people's PATH, and to
/// where it puts the plugins of container runtimes.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin", "/sbin", "/usr/lib/cni"].map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Whether we have root's rights: `/proc/self` belongs to the effective user.
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_tells_the_last_words() {
        let error = read(&mut command("sh", ["-c", "echo first >&2; echo last >&2; exit 3"])).unwrap_err();
        assert_eq!(error.to_string(), "`sh -c echo first >&2; echo last >&2; exit 3` failed: last");
    }

    #[test]
    fn output_comes_without_its_line_end() {
        assert_eq!(read(&mut command("echo", ["some", "words"])).unwrap(), "some words");
    }

    #[test]
    fn a_program_is_found_only_if_it_can_be_run() {
        assert!(find("sh").is_some_and(|file| file.is_absolute()));
        assert!(find("no-program-has-this-name").is_none());
        assert!(!is_executable(&workspace().join("Cargo.toml")));
    }
}
