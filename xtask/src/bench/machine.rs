//! On what was measured.

use std::{fmt, fs, path::Path, thread};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// The machine, as far as it bears on how long a commit takes.
#[derive(Debug)]
pub(super) struct Machine {
    kernel: String,
    cpu: String,
    cores: usize,
    /// The type of the file system that the files are on, and the device under it.
    pub(super) file_system: String,
    device: String,
    /// Processes that ran or waited for the disk in the last minute, on average, before anything was measured.
    load: String,
}

impl Machine {
    /// The one that this runs on, with files in `directory`.
    ///
    /// # Errors
    /// When procfs does not tell.
    pub(super) fn here(directory: &Path) -> Result<Self> {
        let read = |file: &str| fs::read_to_string(file).with_context(|| format!("cannot read {file}"));
        let directory = directory.canonicalize()?;
        let mounts = read("/proc/self/mountinfo")?;
        let (file_system, device) = mount_of(&mounts, &directory).context("no mount has the directory")?;
        Ok(Self {
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            cpu: model(&read("/proc/cpuinfo")?).unwrap_or("unknown CPU").to_owned(),
            cores: thread::available_parallelism()?.get(),
            file_system: file_system.to_owned(),
            device: device.to_owned(),
            load: read("/proc/loadavg")?.split(' ').next().unwrap_or_default().to_owned(),
        })
    }

    /// The same for programs.
    pub(super) fn json(&self) -> Value {
        let Self { kernel, cpu, cores, file_system, device, load } = self;
        json!({ "kernel": kernel, "cpu": cpu, "cores": cores, "file_system": file_system, "device": device, "load": load })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernel, cpu, cores, file_system, device, load } = self;
        write!(f, "Linux {kernel}, {cpu}, {cores} cores, files on {file_system} ({device}), load {load}")
    }
}

/// The type and the device of the file system that `path` is on, from the lines of `/proc/self/mountinfo` (proc(5)).
fn mount_of<'a>(mounts: &'a str, path: &Path) -> Option<(&'a str, &'a str)> {
    let parse = |line: &'a str| {
        let (place, source) = line.split_once(" - ")?;
        let (point, mut source) = (place.split(' ').nth(4)?, source.split(' '));
        path.starts_with(point).then_some((point.len(), (source.next()?, source.next()?)))
    };
    // Of several on one place the last one is on top.
    mounts.lines().filter_map(parse).max_by_key(|(len, _)| *len).map(|(_, source)| source)
}

fn model(cpuinfo: &str) -> Option<&str> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    line.split_once(": ").map(|(_, model)| model)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_on_the_mount_that_is_nearest_above_it() {
        let mounts = "22 1 254:0 / / rw,noatime shared:1 - ext4 /dev/vda rw\n\
                      30 22 0:26 / /tmp rw - tmpfs none rw\n\
                      31 30 0:27 / /tmp/a rw master:3 - xfs /dev/vdb rw\n\
                      32 30 0:28 / /tmp/a rw - btrfs /dev/vdc rw\n";
        assert_eq!(mount_of(mounts, Path::new("/tmp/b")), Some(("tmpfs", "none")));
        assert_eq!(mount_of(mounts, Path::new("/tmp/a/b")), Some(("btrfs", "/dev/vdc")));
        assert_eq!(mount_of(mounts, Path::new("/tmpfile")), Some(("ext4", "/dev/vda")));
        assert_eq!(mount_of("", Path::new("/")), None);
    }

    #[test]
    fn a_processor_may_have_no_name() {
        assert_eq!(model("processor\t: 0\nmodel name\t: AMD EPYC\n"), Some("AMD EPYC"));
        assert_eq!(model("processor\t: 0\n"), None);
    }

    #[test]
    fn this_machine_is_told() {
        let machine = Machine::here(Path::new("/proc")).unwrap();
        assert!(machine.to_string().contains("files on proc (proc)"), "{machine}");
        assert_eq!(machine.json()["file_system"], "proc");
    }
}
