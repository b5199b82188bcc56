//! Who is told what happened, as flags.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::value_parser;

use super::exit::{Exit, Failure};
use crate::hooks::{Hook, HookSettings, Secret, Target};

/// Programs and servers that are told what happens to an incident.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Hooks")]
pub(super) struct HookArgs {
    /// A program (with its whole path and its arguments) or a URL that is told when an incident is `opened`, `evicted`
    /// (the loser has a new address), `resolved` or `failed`, or that replaces a sandbox (`recycle`), as in
    /// opened,evicted=/usr/local/bin/rewrite-nat; may be given more than once, in the environment with one on each line
    #[arg(long = "hook", value_name = "OCCASIONS=PROGRAM|URL", env = "DUPIP_HOOKS", hide_env_values = true)]
    hooks: Vec<Given>,
    /// A file with the secret that webhooks' bodies are signed with (HMAC-SHA256, in `Dupip-Signature`)
    #[arg(long = "hook-secret-file", value_name = "PATH", env = "DUPIP_HOOK_SECRET_FILE")]
    secret_file: Option<PathBuf>,
    /// How long a hook may take; a program that takes longer is killed, with what it has started
    #[arg(long = "hook-timeout", value_name = "TIME", env = "DUPIP_HOOK_TIMEOUT", default_value = "10s", value_parser = limit)]
    timeout: Duration,
    /// How many hooks may be told at one time
    #[arg(
        long = "hook-concurrency",
        value_name = "NUMBER",
        env = "DUPIP_HOOK_CONCURRENCY",
        default_value = "4",
        value_parser = value_parser!(u8).range(1..=64)
    )]
    concurrency: u8,
}

/// Hooks as they were written. It is read only after all flags were, since whoever reads flags repeats those that are wrong,
/// and these may have passwords.
#[derive(Clone)]
struct Given(String);

impl From<String> for Given {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Given")
    }
}

impl Given {
    fn lines(&self) -> impl Iterator<Item = &str> {
        let lines = self.0.lines().map(str::trim).filter(|line| !line.is_empty());
        // An empty text is no hook, and not none.
        lines.chain(self.0.trim().is_empty().then_some(""))
    }
}

/// Longer than nothing, so that a hook can be told at all.
fn limit(text: &str) -> Result<Duration, String> {
    let limit = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let in_reason = Duration::from_millis(1)..=Duration::from_hours(1);
    if in_reason.contains(&limit) { Ok(limit) } else { Err("not between 1ms and 1h".to_owned()) }
}

impl HookArgs {
    /// What the flags say.
    ///
    /// # Errors
    /// When one names no hook, a program that cannot be run, or a secret that cannot be read or signs nothing.
    pub(super) fn settings(&self) -> Result<HookSettings, Failure> {
        let hooks = self.hooks.iter().flat_map(Given::lines).map(checked);
        let mut settings = HookSettings::of(hooks.collect::<Result<Vec<_>, _>>()?);
        settings.timeout = self.timeout;
        settings.concurrency = self.concurrency.into();
        settings.secret = self.secret_file.as_deref().map(secret).transpose()?;
        if settings.secret.is_some() && !settings.has_webhooks() {
            return Err(wrong("--hook-secret-file signs what is sent to webhooks, and no --hook is a URL"));
        }
        Ok(settings)
    }
}

fn wrong(what: impl fmt::Display) -> Failure {
    Failure::new(Exit::Usage, what)
}

fn checked(text: &str) -> Result<Hook, Failure> {
    let hook: Hook = text.parse().map_err(|error| wrong(format_args!("--hook: {error}")))?;
    if let Target::Command(command) = &hook.target {
        runnable(&command.program()).map_err(|why| wrong(format_args!("--hook: cannot run {command}: {why}")))?;
    }
    Ok(hook)
}

/// A program that is not there would be known only when it is needed.
fn runnable(program: &Path) -> Result<(), String> {
    let file = fs::metadata(program).map_err(|error| error.to_string())?;
    let may_run = file.is_file() && file.permissions().mode() & 0o111 != 0;
    if may_run { Ok(()) } else { Err("it is no file that may be executed".to_owned()) }
}

fn secret(path: &Path) -> Result<Secret, Failure> {
    let refused = |why: &dyn fmt::Display| wrong(format_args!("--hook-secret-file {}: {why}", path.display()));
    let bytes = beginning(path).map_err(|error| refused(&error))?;
    let most = Secret::LONGEST;
    Secret::read(&bytes).ok_or_else(|| refused(&format_args!("a secret has 1 to {most} bytes")))
}

/// As much of it as a secret may have, its line's end, and one byte that is too much.
fn beginning(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(Secret::LONGEST as u64 + 3).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::hooks::Occasion;

    #[derive(Debug, Parser)]
    struct Flags {
        #[command(flatten)]
        hooks: HookArgs,
    }

    fn settings(flags: &[&str]) -> Result<HookSettings, String> {
        let flags = Flags::try_parse_from([&["dupip"], flags].concat()).map_err(|error| error.to_string())?;
        flags.hooks.settings().map_err(|failure| format!("{failure:?}"))
    }

    #[test]
    fn nobody_is_told_unless_it_is_said() {
        assert_eq!(settings(&[]), Ok(HookSettings::default()));
    }

    #[test]
    fn everything_can_be_said() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        fs::write(&file, "sesame\n").unwrap();
        let settings = settings(&[
            "--hook",
            "opened,evicted=/bin/sh -c 'cat > /dev/null; true'",
            "--hook",
            "\nresolved=https://hooks.example/?a=b\nrecycle=/bin/true\n",
            "--hook-secret-file",
            file.to_str().unwrap(),
            "--hook-timeout=1500ms",
            "--hook-concurrency=7",
        ])
        .unwrap();
        let told: Vec<_> =
            settings.hooks().iter().map(|hook| (hook.target.to_string(), hook.occasions.len())).collect();
        let want = [("/bin/sh", 2), ("https://hooks.example/…", 1), ("/bin/true", 1)];
        assert_eq!(told, want.map(|(target, count)| (target.to_owned(), count)));
        assert!(settings.hooks()[2].occasions.contains(&Occasion::Recycle));
        assert_eq!((settings.timeout, settings.concurrency), (Duration::from_millis(1500), 7));
        assert_eq!(settings.secret, Secret::read(b"sesame"));
    }

    #[test]
    fn nonsense_is_refused_with_the_reason_and_without_secrets() {
        let empty = tempfile::NamedTempFile::new().unwrap();
        let empty = empty.path().to_str().unwrap();
        for (flags, reason) in [
            (&["--hook", ""][..], "write OCCASION"),
            (&["--hook", "healed=/bin/true"], "there is no occasion `healed`"),
            (&["--hook", "opened=true sesame"], "whole path"),
            (&["--hook", "opened=/no/such/program sesame"], "cannot run /no/such/program: No such file"),
            (&["--hook", "opened=/etc/passwd sesame"], "cannot run /etc/passwd: it is no file that may be executed"),
            (&["--hook", "opened=/bin sesame"], "cannot run /bin: it is no file that may be executed"),
            (&["--hook", "opened=gopher://sesame@a/"], "begins with http:// or https://"),
            (&["--hook", "opened=https://u:sesame@a b/"], "cannot be read"),
            (&["--hook-timeout", "0s"], "not between 1ms and 1h"),
            (&["--hook-timeout", "soon"], "--hook-timeout <TIME>"),
            (&["--hook-concurrency", "0"], "0 is not in 1..=64"),
            (&["--hook", "opened=http://a/", "--hook-secret-file", "/no/such/file"], "/no/such/file: No such file"),
            (&["--hook", "opened=http://a/", "--hook-secret-file", empty], "a secret has 1 to 4096 bytes"),
            (&["--hook", "opened=/bin/true", "--hook-secret-file", "/bin/true"], "a secret has 1 to 4096 bytes"),
            (&["--hook", "opened=/bin/true", "--hook-secret-file", "/proc/sys/kernel/ostype"], "no --hook is a URL"),
        ] {
            let error = settings(flags).unwrap_err();
            assert!(error.contains(reason) && !error.contains("sesame"), "{flags:?}: {error}");
        }
    }
}
