//! The configuration file, read and checked. All that is wrong in it is told at once, each with its line.

use std::{
    fs::File,
    io::{self, Read as _},
    ops::Range,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use clap::{Arg, CommandFactory as _, error::ErrorKind};
use rustix::fs::{OFlags, fcntl_setfl};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    keys::{self, Kind},
    layers,
};
use crate::cli::{
    Cli, environment,
    exit::{Exit, Failure, of_io},
    meant::meant,
};

/// Where it is unless something else is said.
pub(in crate::cli) const CONFIG: &str = "/etc/dupip/dupip.toml";
/// Longer than anybody writes.
const LONGEST: u64 = 1024 * 1024;

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    /// The keys that it has, with the words of a command line that say the same.
    pub(super) keys: Vec<(String, Vec<String>)>,
}

/// What is wrong at a place.
#[derive(Debug, PartialEq, Eq)]
struct Fault {
    line: usize,
    what: String,
}

/// The file at `path`.
///
/// # Errors
/// When it cannot be read, or says what cannot be.
pub(super) fn read(path: &Path) -> Result<Written, Failure> {
    let text = text(path).map_err(|error| unreadable(path, &error))?;
    parse(&text).map_err(|faults| wrong(path, &faults))
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    let what = format!("cannot read the configuration file {}: {error}", path.display());
    match of_io(error) {
        Exit::NotPermitted => Failure::new(Exit::NotPermitted, what).hint("sudo dupip …"),
        _ => Failure::new(Exit::Usage, what).hint("dupip config default, which prints one to begin with"),
    }
}

/// The file that is meant: the one that is named, or else the usual one. Only where that is not there at all there is none:
/// one that cannot be read, or a link that leads nowhere, is no reason to go on without it.
pub(super) fn found(named: Option<&PathBuf>) -> Option<PathBuf> {
    let is_absent = |path: &Path| path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    let usual = || Some(PathBuf::from(CONFIG)).filter(|usual| !is_absent(usual));
    named.cloned().or_else(usual)
}

fn text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    // Nobody waits for a pipe that nobody writes to; one that is being written is waited for.
    let file = File::options().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)?;
    fcntl_setfl(&file, OFlags::empty())?;
    let read = file.take(LONGEST + 1).read_to_string(&mut text)? as u64;
    if read > LONGEST { Err(io::Error::other("it is longer than 1 MiB")) } else { Ok(text) }
}

/// What is wrong in such a text, in one line, and what would keep an agent from going by it.
///
/// # Errors
/// When something is.
pub(in crate::cli) fn validate(text: &str) -> Result<(), String> {
    let told = |faults: Vec<Fault>| {
        let lines = faults.iter().map(|Fault { line, what }| format!("line {line}: {what}"));
        lines.collect::<Vec<_>>().join("; ")
    };
    let written = parse(text).map_err(told)?;
    // Where no bridge is named, the environment or a flag may name it, and more.
    if written.keys.iter().all(|(name, _)| name != "bridge") {
        return Ok(());
    }
    let words = written.keys.into_iter().flat_map(|(_, words)| words);
    layers::alone(words).and_then(|told| told.args.check()).map_err(|failure| failure.to_string())
}

fn wrong(path: &Path, faults: &[Fault]) -> Failure {
    let told: Vec<String> = faults.iter().map(|Fault { line, what }| format!("\n  line {line}: {what}")).collect();
    let what = format!("{} cannot be used:{}", path.display(), told.concat());
    Failure::new(Exit::Usage, what).hint("dupip config default, which has every key with what it means")
}

fn parse(text: &str) -> Result<Written, Vec<Fault>> {
    let table = DeTable::parse(text).map_err(|error| {
        vec![Fault { line: line(text, &error.span().unwrap_or_default()), what: error.message().to_owned() }]
    })?;
    let known = keys::keys();
    let (mut written, mut faults) = (Written::default(), Vec::new());
    let mut entries: Vec<_> = table.get_ref().iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    for (key, value) in entries {
        match entry(key.get_ref(), value, &known) {
            Ok(words) => written.keys.push((key.get_ref().to_string(), words)),
            Err(what) => faults.push(Fault { line: line(text, &key.span()), what }),
        }
    }
    if faults.is_empty() { Ok(written) } else { Err(faults) }
}

fn line(text: &str, span: &Range<usize>) -> usize {
    text.bytes().take(span.start).filter(|byte| *byte == b'\n').count() + 1
}

/// One key's words, if it is one and what it says can be.
fn entry(name: &str, value: &Spanned<DeValue<'_>>, known: &[Arg]) -> Result<Vec<String>, String> {
    let key = known.iter().find(|key| keys::name(key) == name).ok_or_else(|| unknown(name, value.get_ref(), known))?;
    let words = match (keys::kind(key), value.get_ref()) {
        (Kind::Many, DeValue::Array(list)) if list.is_empty() && !key.get_default_values().is_empty() => {
            return Err(format!("`{name}` says nothing; to have none of it, write `{name} = \"none\"`"));
        }
        (Kind::Switch | Kind::OneOrTrue, DeValue::Boolean(false)) => Vec::new(),
        (Kind::Switch | Kind::OneOrTrue, DeValue::Boolean(true)) => vec![format!("--{name}")],
        (Kind::Switch, _) => return Err(format!("`{name}` is true or false")),
        (Kind::Many, DeValue::Array(list)) => {
            let values: Result<Vec<String>, String> = list.iter().map(|value| scalar(name, value.get_ref())).collect();
            keys::words(key, values?.iter().map(String::as_str))
        }
        (_, DeValue::Array(_)) => return Err(format!("`{name}` takes one value, not a list")),
        (_, value) => keys::words(key, [scalar(name, value)?.as_str()]),
    };
    accepted(name, &words).map(|()| words)
}

fn scalar(name: &str, value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map(|number| number.to_string())
            .map_err(|error| format!("`{name}`: {error}")),
        _ => Err(format!("`{name}` takes a text in quotes or a whole number")),
    }
}

fn unknown(name: &str, value: &DeValue<'_>, known: &[Arg]) -> String {
    if matches!(value, DeValue::Table(_)) {
        return format!("there are no sections: write the keys of [{name}] above all sections");
    }
    match meant(name, known.iter().map(keys::name)) {
        Some(meant) => format!("there is no key `{name}`; do you mean `{meant}`?"),
        None if name == "socket" => "`socket` is no key, since every command needs it: set DUPIP_SOCKET".to_owned(),
        None => format!("there is no key `{name}`"),
    }
}

/// Whether `dupip run` would take these words. What has to do with other words is checked with all of them.
fn accepted(name: &str, words: &[String]) -> Result<(), String> {
    let line = ["dupip", "run"].into_iter().chain(words.iter().map(String::as_str));
    match environment::unheard(Cli::command()).try_get_matches_from(line) {
        Err(error) if !matches!(error.kind(), ErrorKind::MissingRequiredArgument | ErrorKind::ArgumentConflict) => {
            Err(format!("`{name}`: {}", reason(&error)))
        }
        _ => Ok(()),
    }
}

/// What is wrong, without how the command line is used.
pub(super) fn reason(error: &clap::Error) -> String {
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let what: Vec<&str> =
        text.lines().take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more")).collect();
    what.iter().map(|line| line.trim()).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, os::fd::AsRawFd as _};

    use super::*;

    fn words(text: &str) -> Vec<String> {
        parse(text).unwrap().keys.into_iter().flat_map(|(_, words)| words).collect()
    }

    #[test]
    fn a_file_says_what_flags_say() {
        let text = "bridge = [\"rt0\", \"rt1\"]\nmode = \"enforce\"\nwait = true\nno-ipv4-watch = false\n\
                    evictions-per-minute = 7\nniceness = -5\nkeep-quarantine = true\nshared = \"10.8.64.9\"\n";
        let want = "--bridge=rt0 --bridge=rt1 --mode=enforce --wait --evictions-per-minute=7 --niceness=-5 \
                    --keep-quarantine --shared=10.8.64.9";
        assert_eq!(words(text), want.split_whitespace().collect::<Vec<_>>());
        assert_eq!(words(""), Vec::<String>::new());
    }

    #[test]
    fn all_that_is_wrong_is_told_with_its_line() {
        let text = "bridge = \"rt0\"\nevictions_per_minute = 5\n\nmode = \"heal\"\nwait = \"yes\"\nniceness = [1]\n\
                    cooldown = 1.5\nshared = [\"10.8.64.9\", true]\nfoo = 1\nsocket = \"/x\"\nstrikes = 0\n\n[hooks]\nhook = \"a\"\n";
        let faults: Vec<String> =
            parse(text).unwrap_err().iter().map(|Fault { line, what }| format!("{line}: {what}")).collect();
        let want = [
            "2: there is no key `evictions_per_minute`; do you mean `evictions-per-minute`?",
            "4: `mode`: invalid value 'heal' for '--mode <MODE>' [possible values: observe, enforce]",
            "5: `wait` is true or false",
            "6: `niceness` takes one value, not a list",
            "7: `cooldown` takes a text in quotes or a whole number",
            "8: `shared` takes a text in quotes or a whole number",
            "9: there is no key `foo`",
            "10: `socket` is no key, since every command needs it: set DUPIP_SOCKET",
            "11: `strikes`: invalid value '0' for '--strikes <NUMBER>': 0 is not in 1..=1000",
            "13: there are no sections: write the keys of [hooks] above all sections",
        ];
        assert_eq!(faults, want);
    }

    #[test]
    fn what_is_no_toml_is_told_with_its_line() {
        for (text, line, says) in [
            ("bridge = \"rt0\"\nmode enforce\n", 2, "="),
            ("mode = \"observe\"\nmode = \"enforce\"\n", 2, "duplicate key"),
            ("\n\nbridge = [\"rt0\"", 3, "]"),
        ] {
            let faults = parse(text).unwrap_err();
            let [fault] = &faults[..] else { panic!("{faults:?}") };
            assert!(fault.line == line && fault.what.contains(says), "{text:?}: {fault:?}");
        }
    }

    #[test]
    fn what_is_no_file_or_too_long_is_told() {
        let failure = |path: &Path| format!("{:?}", read(path).unwrap_err());
        assert!(
            failure(Path::new("/no/such/file")).contains("cannot read the configuration file /no/such/file: No such")
        );
        assert!(failure(Path::new("/dev/zero")).contains("it is longer than 1 MiB"));
        assert_eq!(read(Path::new("/dev/null")), Ok(Written::default()));
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert_eq!(read(&pipe), Ok(Written::default()), "and it does not wait for anybody to write");
    }

    /// As in `dupip config default | dupip config check /dev/stdin`.
    #[test]
    fn what_is_still_being_written_to_a_pipe_is_waited_for() {
        let (reader, mut writer) = io::pipe().unwrap();
        let path = format!("/proc/self/fd/{}", reader.as_raw_fd());
        let read = std::thread::spawn(move || read(Path::new(&path)));
        writer.write_all(b"bridge = \"rt0\"\n").unwrap();
        drop(writer);
        assert_eq!(read.join().unwrap().unwrap().keys.len(), 1);
    }

    #[test]
    fn a_list_of_nothing_is_refused_where_nothing_is_not_what_holds_then() {
        let [fault] = &parse("listen = []\nsuppress = []\n").unwrap_err()[..] else { panic!() };
        assert_eq!(fault.what, "`listen` says nothing; to have none of it, write `listen = \"none\"`");
    }
}
