//! The unit and the configuration that an agent is started by.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
    process::Stdio,
    time::Duration,
};

use rustix::fs::OFlags;
use tokio::{process::Command, time::timeout};

use super::{
    Check, Lack,
    topics::{self, Topic},
};

/// There while systemd runs (`sd_booted(3)`).
const SYSTEMD: &str = "/run/systemd/system";
const UNIT: &str = "dupip.service";
/// How long systemd may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How to hear what the unit is at.
const WHY: &str = "journalctl -u dupip -n 50 says why";
/// Longer than any configuration, in bytes: an agent reads no more.
const LONGEST: usize = 1 << 20;

/// What a configuration says wrong, if anything; the error names the place.
pub type Validate = fn(&str) -> Result<(), String>;

pub(super) async fn unit() -> Check {
    const NAME: &Topic = topics::UNIT;
    if !Path::new(SYSTEMD).is_dir() {
        return Check::ok(NAME, "systemd does not run here: who starts the agent is not its affair");
    }
    let mut show = Command::new("systemctl");
    show.args(["show", "--property=LoadState,ActiveState,SubState,UnitFileState,NRestarts,Result", UNIT]);
    let answer = timeout(PATIENCE, show.stdin(Stdio::null()).kill_on_drop(true).output()).await;
    match answer {
        Ok(Ok(output)) if output.status.success() => of_unit(&String::from_utf8_lossy(&output.stdout)).of(UNIT),
        Ok(Ok(output)) => {
            Check::skipped(NAME, format!("systemctl: {}", String::from_utf8_lossy(&output.stderr).trim()))
        }
        Ok(Err(error)) => Check::skipped(NAME, format!("cannot run systemctl: {error}")),
        Err(_) => Check::skipped(NAME, "systemctl does not answer"),
    }
}

/// What `systemctl show` says.
fn of_unit(shown: &str) -> Check {
    const NAME: &Topic = topics::UNIT;
    let said: BTreeMap<_, _> = shown.lines().filter_map(|line| line.split_once('=')).collect();
    let word = |name: &str| said.get(name).copied().unwrap_or_default();
    match (word("LoadState"), word("ActiveState"), word("UnitFileState")) {
        ("not-found", ..) => Check::ok(NAME, "there is no such unit: the agent is started by something else, if it is"),
        ("masked", ..) | (_, _, "masked") => Check::warning(NAME, "is masked: systemd does not start the agent")
            .cure("systemctl unmask dupip && systemctl enable --now dupip"),
        (_, "failed", _) => Check::warning(NAME, format!("has failed ({})", word("Result")))
            .cure("journalctl -u dupip -n 50 says why; then systemctl reset-failed dupip && systemctl start dupip"),
        (_, "active", "enabled" | "static" | "generated") => {
            Check::ok(NAME, format!("is active and enabled; systemd has restarted it {} times", word("NRestarts")))
        }
        (_, "active", "enabled-runtime") => {
            Check::warning(NAME, "is active, and enabled until the next boot only").cure("systemctl enable dupip")
        }
        (_, "active", _) => {
            Check::warning(NAME, "is active, and not started after the next boot").cure("systemctl enable dupip")
        }
        (_, "activating", _) if word("SubState").starts_with("auto-restart") => Check::warning(
            NAME,
            format!(
                "has ended ({}), and systemd is about to start it again, as it has {} times",
                word("Result"),
                word("NRestarts")
            ),
        )
        .cure(WHY),
        (_, state @ ("activating" | "reloading" | "refreshing" | "deactivating"), _) => {
            Check::warning(NAME, format!("is {state} ({})", word("SubState"))).cure(format!("wait a moment; {WHY}"))
        }
        (_, state, _) => {
            Check::warning(NAME, format!("is {state}: the agent does not run")).cure("systemctl enable --now dupip")
        }
    }
}

/// Looks at the configuration at `path`; none is none.
pub(super) fn configuration(path: &Path, validate: Validate) -> Check {
    const NAME: &Topic = topics::CONFIGURATION;
    let check = match text(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.is_symlink() => {
            Check::warning(NAME, "is a link that leads nowhere")
                .cure(format!("ls -l {}; mend or remove it", path.display()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Check::ok(NAME, "there is none: the agent has what its flags say, and else what is usual")
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Check::missing(NAME, Lack::Permission, "may not be read").cure("run as root")
        }
        Err(error) => Check::warning(NAME, format!("cannot be read: {error}"))
            .cure(format!("mend it: {} is to be a regular file of UTF-8 text", path.display())),
        Ok(text) => match (validate(&text), who_may_write(path)) {
            (Err(why), _) => Check::warning(NAME, format!("the agent would not start with it: {why}"))
                .cure(format!("mend it in {}", path.display())),
            (Ok(()), Some(who)) => Check::warning(NAME, format!("is right, and {who} may change it"))
                .cure(format!("chown root: {0} && chmod go-w {0}", path.display())),
            (Ok(()), None) => Check::ok(NAME, "says only what dupip understands"),
        },
    };
    check.of(path.display())
}

/// What a regular file says. Others are not even opened: to read them might wait, or never end.
fn text(path: &Path) -> io::Result<String> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
    let mut text = Vec::new();
    match file.take(LONGEST as u64 + 1).read_to_end(&mut text)? {
        ..=LONGEST => String::from_utf8(text).map_err(io::Error::other),
        _ => Err(io::Error::other("it is longer than 1 MiB")),
    }
}

/// Who besides root may write there.
fn who_may_write(path: &Path) -> Option<&'static str> {
    let found = fs::metadata(path).ok()?;
    match (found.permissions().mode() & 0o022, found.uid()) {
        (0, 0) => None,
        (0, _) => Some("its owner, who is not root,"),
        _ => Some("others than its owner"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;
    use crate::doctor::Status;

    fn shown(load: &str, active: &str, file: &str) -> Check {
        of_unit(&format!(
            "LoadState={load}\nActiveState={active}\nUnitFileState={file}\nNRestarts=2\nResult=exit-code\n\
             SubState={}\n",
            if active == "activating" { "auto-restart" } else { "x" }
        ))
    }

    #[test]
    fn a_unit_is_active_and_enabled_or_it_is_told_what_to_type() {
        assert_eq!(shown("loaded", "active", "enabled").status, Status::Ok);
        assert_eq!(shown("not-found", "inactive", "").status, Status::Ok);
        for (load, active, file, meaning, cure) in [
            ("loaded", "active", "disabled", "not started after the next boot", "systemctl enable dupip"),
            ("loaded", "inactive", "enabled", "is inactive: the agent does not run", "systemctl enable --now dupip"),
            ("loaded", "failed", "enabled", "has failed (exit-code)", "journalctl -u dupip"),
            ("masked", "inactive", "masked", "is masked", "systemctl unmask dupip"),
            (
                "loaded",
                "activating",
                "enabled",
                "has ended (exit-code), and systemd is about to",
                "journalctl -u dupip -n 50",
            ),
            ("loaded", "reloading", "enabled", "is reloading (x)", "journalctl -u dupip -n 50"),
            ("loaded", "deactivating", "enabled", "is deactivating (x)", "journalctl -u dupip -n 50"),
            ("loaded", "active", "enabled-runtime", "until the next boot only", "systemctl enable dupip"),
        ] {
            let check = shown(load, active, file);
            assert!(check.status == Status::Warning && check.meaning.contains(meaning), "{check:?}");
            assert!(check.remedy.as_ref().unwrap().contains(cure), "{check:?}");
        }
    }

    #[test]
    fn a_configuration_is_right_wrong_or_absent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dupip.toml");
        let validate: Validate = |text| if text.contains("brige") { Err("no key `brige`".to_owned()) } else { Ok(()) };
        let look = || configuration(&path, validate);
        assert_eq!((look().status, look().subject), (Status::Ok, Some(path.display().to_string())));
        fs::write(&path, "brige = 1").unwrap();
        assert!(look().meaning.ends_with("no key `brige`"), "{:?}", look());
        fs::write(&path, "bridge = 1").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(look().meaning.contains("others than its owner"), "{:?}", look());
        fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(look().meaning.starts_with("cannot be read"), "{:?}", look());
    }

    #[test]
    fn what_is_no_file_is_not_read_for_a_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let look = |path: &Path| configuration(path, |_| Ok(()));
        mknodat(CWD, at("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        symlink(at("fifo"), at("to_fifo")).unwrap();
        for path in [at("fifo"), at("to_fifo"), folder.path().to_owned()] {
            let check = look(&path);
            assert!(check.status == Status::Warning && check.meaning.contains("it is no regular file"), "{check:?}");
        }
        symlink(at("none"), at("dangling")).unwrap();
        let check = look(&at("dangling"));
        assert!(check.status == Status::Warning && check.meaning.contains("leads nowhere"), "{check:?}");
        symlink("/dev/zero", at("zero")).unwrap();
        assert!(look(&at("zero")).meaning.contains("it is no regular file"));
        fs::write(at("long"), vec![b'#'; 1 + LONGEST]).unwrap();
        assert!(look(&at("long")).meaning.contains("longer than 1 MiB"));
        symlink(at("file"), at("link")).unwrap();
        fs::write(at("file"), "").unwrap();
        assert_eq!(look(&at("link")).status, Status::Ok);
    }
}
