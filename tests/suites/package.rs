//! The Debian package: judged, installed into a clean root, and its agent run by systemd there.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process,
};

use anyhow::{Context as _, Result, ensure};
use lab::{Bridge, Machine, Runner, wait_until};
use serde_json::{Value, json};

use crate::agent::{DEADLINE, text};

/// How exposed the agent's unit may be, in tenths of what `systemd-analyze security` shows.
const EXPOSURE: u32 = 34;

const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../detector/packaging/systemd/dupip.service");

/// The package: what the environment variable `DUPIP_DEB` names, else the only one that was made for tests.
fn package() -> Result<PathBuf> {
    if let Some(path) = env::var_os("DUPIP_DEB") {
        return Path::new(&path).canonicalize().with_context(|| format!("DUPIP_DEB names {}", path.display()));
    }
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target").join("debian-dev");
    let made = fs::read_dir(&packages).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut made = made.filter(|path| path.extension().is_some_and(|end| end == "deb"));
    let only = made.next().filter(|_| made.next().is_none());
    let remedy = "make one with `cargo xtask package --profile dev`, or name one in DUPIP_DEB";
    only.with_context(|| format!("there is not one package in {}: {remedy}", packages.display()))
}

/// The same package as a later revision, at `path`.
fn write_next_revision(path: &Path) -> Result<()> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let parts = folder.path().join("parts");
    let dpkg_deb = |words: [&OsStr; 3]| -> Result<()> {
        let output = process::Command::new("dpkg-deb").arg("-Znone").args(words).output()?;
        ensure!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    dpkg_deb(["--raw-extract".as_ref(), package()?.as_ref(), parts.as_ref()])?;
    let control = parts.join("DEBIAN/control");
    let lines = fs::read_to_string(&control)?;
    let next = |line: &str| format!("{line}{}\n", if line.starts_with("Version: ") { "+next" } else { "" });
    fs::write(&control, lines.lines().map(next).collect::<String>())?;
    dpkg_deb(["--build".as_ref(), parts.as_ref(), path.as_ref()])
}

/// A machine with the package on it, on a runner with a bridge rt0.
struct Installed {
    bridge: Bridge,
    machine: Machine,
}

impl Installed {
    fn new() -> Result<Self> {
        let bridge = Runner::new()?.bridge("rt0", "10.8.64.1/24")?;
        let package = package()?;
        let machine = Machine::boot(bridge.runner(), &package)?;
        let file = package.file_name().context("a package without a name")?.display().to_string();
        let installed = Self { bridge, machine };
        installed.files_before()?;
        installed.machine.run(["dpkg", "--install", &format!("/srv/{file}")])?;
        Ok(installed)
    }

    /// Every file of the system but what dpkg keeps for itself and what the kernel or systemd shows.
    fn files(&self) -> Result<Vec<String>> {
        let mut found = self.machine.run([
            "find",
            "/",
            "-xdev",
            "-path",
            "/var/lib/dpkg",
            "-prune",
            "-o",
            "-path",
            "/var/log",
            "-prune",
            "-o",
            "-path",
            "/srv",
            "-prune",
            "-o",
            "-print",
        ])?;
        found.push_str(&self.machine.run([
            "find",
            "/run",
            "-xdev",
            "-path",
            "/run/systemd",
            "-prune",
            "-o",
            "-print",
        ])?);
        found.push_str(&self.machine.run(["getent", "group"])?);
        let mut lines: Vec<_> = found.lines().map(str::to_owned).collect();
        lines.sort();
        Ok(lines)
    }

    fn files_before(&self) -> Result<()> {
        fs::write(self.machine.outside("/srv/before"), self.files()?.join("\n"))?;
        Ok(())
    }

    /// That nothing is there that was not before the package was installed.
    fn assert_nothing_left(&self) -> Result<()> {
        let before = fs::read_to_string(self.machine.outside("/srv/before"))?;
        let left: Vec<_> =
            self.files()?.into_iter().filter(|file| !before.lines().any(|known| known == file)).collect();
        assert_eq!(left, [] as [String; 0]);
        Ok(())
    }

    /// Tells systemd more of the unit, as `systemctl edit` does.
    fn drop_in(&self, text: &str) -> Result<()> {
        let folder = self.machine.outside("/etc/systemd/system/dupip.service.d");
        fs::create_dir(&folder)?;
        fs::write(folder.join("lab.conf"), text)?;
        self.machine.run(["systemctl", "daemon-reload"]).map(drop)
    }

    fn told(&self, settings: &str) -> Result<()> {
        fs::write(self.machine.outside("/etc/default/dupip"), settings)?;
        Ok(())
    }

    fn configure(&self, text: &str) -> Result<()> {
        fs::write(self.machine.outside("/etc/dupip/dupip.toml"), text)?;
        Ok(())
    }

    fn start(&self) -> Result<()> {
        self.machine.run(["systemctl", "start", "dupip"]).map(drop).map_err(|error| self.explain(error))
    }

    fn property(&self, name: &str) -> Result<String> {
        let value = self.machine.run(["systemctl", "show", "--value", "--property", name, "dupip"])?;
        Ok(value.trim().to_owned())
    }

    /// Waits until a property of the unit is so.
    fn wait_for(&self, name: &str, want: &str) -> Result<()> {
        let look = || Ok((self.property(name)? == want).then_some(()));
        wait_until(DEADLINE, &format!("{name} to be `{want}`"), look).map_err(|error| self.explain(error))
    }

    fn signal(&self, signal: &str) -> Result<()> {
        self.machine.run(["systemctl", "kill", "--kill-whom=main", "--signal", signal, "dupip"]).map(drop)
    }

    fn ask(&self, verb: &str) -> Result<Vec<Value>> {
        Ok(serde_json::from_str(&self.machine.run(["dupip", verb, "-o", "json"])?)?)
    }

    /// What the agent has logged, as the journal keeps it.
    fn journal(&self) -> Result<Vec<Value>> {
        let lines = self.machine.run(["journalctl", "--unit=dupip", "--output=json", "--no-pager"])?;
        let is_ours = |line: &Value| text(line, "_COMM") == "dupip";
        let lines = lines.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
        Ok(lines.into_iter().filter(is_ours).collect())
    }

    fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let log = self.machine.run(["journalctl", "--unit=dupip", "--no-pager", "--output=cat"]);
        error.context(log.unwrap_or_default())
    }
}

/// The priority of the first line of the journal that has these words in it.
fn priority<'a>(journal: &'a [Value], words: &str) -> Option<&'a str> {
    journal.iter().find(|line| text(line, "MESSAGE").contains(words)).map(|line| text(line, "PRIORITY"))
}

#[test]
fn lintian_finds_nothing_wrong() -> Result<()> {
    let output = process::Command::new("lintian").args(["--fail-on", "error,warning"]).arg(package()?).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

#[test]
fn the_unit_is_locked_up() -> Result<()> {
    let mut analyze = process::Command::new("systemd-analyze");
    analyze.args(["security", "--offline=true", "--no-pager", &format!("--threshold={EXPOSURE}"), UNIT]);
    let output = analyze.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

#[test]
fn what_is_installed_does_its_work_and_goes_without_a_trace() -> Result<()> {
    let lab = Installed::new()?;
    let machine = &lab.machine;
    assert_eq!(machine.output(["systemctl", "is-enabled", "dupip"])?.stdout, b"disabled\n");
    assert_eq!(lab.property("ActiveState")?, "inactive");
    machine.run(["test", "-e", "/usr/share/man/man1/dupip-run.1.gz"])?;
    let plugin = machine.output(["env", "CNI_COMMAND=VERSION", "/usr/lib/cni/dupip-ipam"])?;
    assert!(String::from_utf8_lossy(&plugin.stdout).contains("supportedVersions"), "{plugin:?}");

    lab.configure("bridge = [\"rt0\"]\n")?;
    lab.start()?;
    assert_eq!(lab.property("StatusText")?, "watches 1 bridge with 0 ports; no duplicate");
    lab.configure("bridge = [\"rt0\"]\nmode = \"enforce\"\n")?;
    machine.run(["systemctl", "reload", "dupip"])?;
    lab.wait_for("ActiveState", "active")?;
    machine.run(["dupip", "lease", "allocate", "--bridge", "rt0", "--owner", "holder", "--address", "10.8.64.2"])?;
    let [holder, loser] = lab.bridge.duplicate(["holder", "loser"], "10.8.64.2/24")?;
    let incident = wait_until(DEADLINE, "the duplicate to be healed", || {
        Ok(lab.ask("conflicts")?.into_iter().find(|incident| text(incident, "status") == "healed"))
    });
    let incident = incident.map_err(|error| lab.explain(error))?;
    assert!(incident.to_string().contains("\"loser\""), "{incident}");
    assert_eq!(lab.bridge.owners([10, 8, 64, 2].into())?, [holder.mac()?].into());
    assert_ne!(loser.addresses()?, ["10.8.64.2/24"]);
    lab.wait_for("StatusText", "watches 1 bridge with 2 ports; no duplicate")?;

    let journal = lab.journal()?;
    let named = journal.iter().find(|line| text(line, "MESSAGE").contains("both use 10.8.64.2 on rt0"));
    let named = named.context("the journal does not name the duplicate")?;
    assert!(text(named, "MESSAGE").starts_with(['h', 'l']), "a time or a priority stands before it: {named}");
    assert_eq!(priority(&journal, "both use 10.8.64.2 on rt0"), Some("3"));
    assert_eq!(priority(&journal, "watches rt0"), Some("6"));

    machine.run(["systemctl", "stop", "dupip"])?;
    assert_eq!((lab.property("Result")?, lab.property("NRestarts")?), ("success".to_owned(), "0".to_owned()));
    machine.run(["dpkg", "--purge", "dupip"])?;
    machine.run(["test", "!", "-e", "/sys/fs/bpf/dupip"])?;
    lab.assert_nothing_left()
}

#[test]
fn an_upgrade_keeps_leases_and_settings_and_a_removal_the_leases() -> Result<()> {
    const SETTINGS: &str = "# ours\nbridge = [\"rt0\"]\n";
    const NEXT: &str = "/srv/next.deb";
    let lab = Installed::new()?;
    let machine = &lab.machine;
    lab.configure(SETTINGS)?;
    lab.start()?;
    machine.run(["dupip", "lease", "allocate", "--bridge", "rt0", "--owner", "holder", "--address", "10.8.64.2"])?;
    let leases = || -> Result<Vec<Value>> {
        let listed: Vec<Value> = serde_json::from_str(&machine.run(["dupip", "lease", "list", "-o", "json"])?)?;
        Ok(listed
            .iter()
            .map(|lease| json!([lease["address"], lease["owner"], lease["generation"], lease["state"]]))
            .collect())
    };
    let (pid, held) = (lab.property("MainPID")?, leases()?);
    assert_eq!(held, [json!(["10.8.64.2", "holder", 1, "bound"])]);

    write_next_revision(&machine.outside(NEXT))?;
    machine.run(["dpkg", "--install", NEXT])?;
    lab.wait_for("ActiveState", "active")?;
    assert_ne!(lab.property("MainPID")?, pid, "the new program runs");
    assert!(machine.run(["dpkg-query", "--show", "dupip"])?.trim_end().ends_with("+next"));
    let settings = || fs::read_to_string(machine.outside("/etc/dupip/dupip.toml"));
    assert_eq!((leases()?, settings()?), (held, SETTINGS.to_owned()));
    let socket = machine.run(["stat", "--format=%U:%G %a", "/run/dupip/dupip.sock"])?;
    assert_eq!(socket, "root:dupip 660\n");

    machine.run(["dpkg", "--remove", "dupip"])?;
    machine.run(["test", "!", "-e", "/usr/bin/dupip", "-a", "!", "-e", "/run/dupip"])?;
    machine.run(["test", "-s", "/var/lib/dupip/leases.db"])?;
    assert_eq!(settings()?, SETTINGS);
    machine.run(["dpkg", "--purge", "dupip"])?;
    lab.assert_nothing_left()
}

#[test]
fn an_address_that_comes_late_is_waited_for() -> Result<()> {
    let lab = Installed::new()?;
    // As in a container.
    lab.machine.run(["umount", "--lazy", "/dev/kmsg"])?;
    lab.machine.run(["rm", "/dev/kmsg"])?;
    lab.drop_in("[Service]\nRestartSec=100ms\n")?;
    lab.configure("bridge = [\"rt0\"]\nlisten = \"[::1]:9477\"\n")?;
    lab.bridge.runner().run(["ip", "address", "delete", "::1/128", "dev", "lo"])?;
    lab.machine.run(["systemctl", "start", "--no-block", "dupip"])?;
    // More often than systemd tries what has a limit (5 times in 10 s).
    let tries = || Ok((lab.property("NRestarts")?.parse::<u32>()? > 6).then_some(()));
    wait_until(DEADLINE, "it to be tried again and again", tries).map_err(|error| lab.explain(error))?;
    lab.bridge.runner().run(["ip", "address", "add", "::1/128", "dev", "lo"])?;
    lab.wait_for("ActiveState", "active")?;
    assert_eq!(lab.property("StatusText")?, "watches 1 bridge with 0 ports; no duplicate");
    Ok(())
}

#[test]
fn an_agent_that_dies_or_stands_still_is_started_anew() -> Result<()> {
    let lab = Installed::new()?;
    lab.drop_in("[Service]\nWatchdogSec=2s\nRestartSec=100ms\n")?;
    lab.told("DUPIP_BRIDGE=rt0,rt7\nDUPIP_WAIT=true\nDUPIP_KEEP_QUARANTINE=/sys/fs/bpf/dupip\n")?;
    lab.start()?;
    let status = "watches 1 bridge with 0 ports; no duplicate; waits for rt7 to appear";
    assert_eq!(lab.property("StatusText")?, status);
    lab.machine.run(["test", "-e", "/sys/fs/bpf/dupip/quarantine"])?;
    lab.bridge.runner().bridge("rt7", "10.8.70.1/24")?;
    lab.wait_for("StatusText", "watches 2 bridges with 0 ports; no duplicate")?;

    for (signal, restarts) in [("KILL", "1"), ("STOP", "2")] {
        lab.signal(signal)?;
        lab.wait_for("NRestarts", restarts)?;
        lab.wait_for("SubState", "running")?;
        lab.wait_for("StatusText", "watches 2 bridges with 0 ports; no duplicate")?;
    }
    let told = lab.machine.run(["journalctl", "--unit=dupip", "--no-pager", "--output=cat"])?;
    assert!(told.contains("Watchdog timeout"), "{told}");
    Ok(())
}

#[test]
fn what_cannot_be_started_is_said_as_an_error_and_not_tried_again() -> Result<()> {
    let lab = Installed::new()?;
    lab.configure("brigde = [\"rt0\"]\n")?;
    ensure!(!lab.machine.output(["systemctl", "start", "dupip"])?.status.success(), "it started");
    lab.wait_for("SubState", "failed")?;
    assert_eq!((lab.property("ExecMainStatus")?, lab.property("NRestarts")?), ("2".to_owned(), "0".to_owned()));
    assert_eq!(priority(&lab.journal()?, "brigde"), Some("3"));
    Ok(())
}
