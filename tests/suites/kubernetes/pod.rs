//! A pod of the DaemonSet on a runner: the container with exactly the rights, mounts and namespaces that the manifest gives
//! it, run by `crun` as a node's runtime would.
//!
//! What is missing is the node's control groups, and with them the limits and the list of devices.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use lab::{Process, Runner};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    image,
    manifests::{at, list, only},
    seccomp,
};

/// What runtimes hide of `/proc` and `/sys`, and what they let nobody write (`defaultMaskedPaths` and
/// `defaultReadonlyPaths` of containerd and CRI-O).
const MASKED: [&str; 9] = [
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The lab shares the machine's `/var`, so what the node has there is elsewhere on a runner.
const VAR: &str = "/run/lab/var";

/// The image's root and the pod that is to be run of it.
pub(super) struct Pod {
    runner: Runner,
    folder: TempDir,
    pod: Value,
    config_map: Value,
    secrets: BTreeMap<&'static str, Secret>,
}

/// What a Secret has: texts by their keys.
pub(super) type Secret = BTreeMap<&'static str, String>;

impl Pod {
    /// The only pod of the manifests on a runner, with an image of the `dupip` at `binary`.
    pub(super) fn new(runner: &Runner, manifests: &[Value], binary: &Path) -> Result<Self> {
        let pod = Self::without_bpf_file_system(runner, manifests, binary)?;
        // systemd mounts it on every node.
        runner.run(["mount", "-t", "bpf", "bpf", "/sys/fs/bpf"])?;
        Ok(pod)
    }

    /// The same on a node that has no file system of BPF mounted.
    pub(super) fn without_bpf_file_system(runner: &Runner, manifests: &[Value], binary: &Path) -> Result<Self> {
        let pod = only(manifests, "DaemonSet")?.pointer("/spec/template/spec").context("no pod")?.clone();
        let config_map = only(manifests, "ConfigMap")?.clone();
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        image::assemble(binary, &folder.path().join("rootfs"))?;
        Ok(Self { runner: runner.clone(), folder, pod, config_map, secrets: BTreeMap::new() })
    }

    /// With these Secrets in its namespace.
    pub(super) fn with_secrets(self, secrets: BTreeMap<&'static str, Secret>) -> Self {
        Self { secrets, ..self }
    }

    /// What the pod's only container may do, such as `NET_ADMIN`.
    pub(super) fn capabilities(&self) -> Vec<String> {
        let added = list(self.container(), "/securityContext/capabilities/add");
        added.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// Starts the container as the manifest has it, with further environment variables.
    pub(super) fn start(&self, environment: &[&str]) -> Result<Process> {
        let args = list(self.container(), "/args").iter().filter_map(Value::as_str);
        let words: Vec<_> = image::entry_point()?.into_iter().chain(args.map(str::to_owned)).collect();
        self.container_of("dupip", &words, &self.capabilities(), environment)?.spawn()
    }

    /// What the image's program prints, run with `args` and only these capabilities in the place of the manifest's, however
    /// it ends.
    pub(super) fn output(&self, args: &[&str], capabilities: &[String]) -> Result<String> {
        let words: Vec<_> = image::entry_point()?.into_iter().chain(args.iter().map(|&arg| arg.to_owned())).collect();
        let output = self.container_of("once", &words, capabilities, &[])?.output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        String::from_utf8(output.stdout).with_context(|| format!("it is no text; it said: {said}"))
    }

    /// Runs a program in the running container, as `kubectl exec` does.
    pub(super) fn exec(&self, words: &[String]) -> Result<String> {
        self.crun(["exec", "dupip"]).args(words).run()
    }

    /// Ends the container as a node does, and waits no longer than a node would.
    pub(super) fn terminate(&self, process: &mut Process) -> Result<()> {
        let grace = at(&self.pod, "/terminationGracePeriodSeconds").as_u64().context("no grace")?;
        self.crun(["kill", "dupip", "TERM"]).run()?;
        let status = process.wait(Duration::from_secs(grace))?;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    }

    /// `/proc/PID/status` of the container's process.
    pub(super) fn status(&self) -> Result<String> {
        let state = self.crun(["state", "dupip"]).run()?;
        let state: Value = serde_json::from_str(&state)?;
        self.runner.run(["cat", &format!("/proc/{}/status", at(&state, "/pid"))])
    }

    pub(super) fn container(&self) -> &Value {
        at(&self.pod, "/containers/0")
    }

    fn crun<const N: usize>(&self, words: [&str; N]) -> lab::Command {
        self.runner.command("crun").args(["--root", "/run/lab/crun", "--cgroup-manager", "disabled"]).args(words)
    }

    /// A container that is to be called `name`.
    fn container_of(
        &self,
        name: &str,
        words: &[String],
        capabilities: &[String],
        env: &[&str],
    ) -> Result<lab::Command> {
        let config = self.config(words, capabilities, env)?;
        fs::write(self.folder.path().join("config.json"), serde_json::to_vec(&config)?)?;
        Ok(self.crun(["run", "--bundle"]).arg(self.folder.path()).arg(name))
    }

    /// The container as the runtime is told of it (OCI runtime specification, `config.json`).
    fn config(&self, words: &[String], capabilities: &[String], environment: &[&str]) -> Result<Value> {
        let context = &self.container()["securityContext"];
        ensure!(*at(context, "/privileged") == false, "what a privileged container may do is not what is shown here");
        let capabilities: Vec<_> = capabilities.iter().map(|name| format!("CAP_{name}")).collect();
        let sets =
            ["bounding", "effective", "permitted", "inheritable"].map(|set| (set.to_owned(), json!(capabilities)));
        let is_true = |of: &Value, pointer: &str| *at(of, pointer) == true;
        Ok(json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": { "uid": at(context, "/runAsUser"), "gid": at(context, "/runAsGroup") },
                "args": words,
                "env": environment,
                "cwd": "/",
                "noNewPrivileges": *at(context, "/allowPrivilegeEscalation") == false,
                "capabilities": sets.into_iter().collect::<serde_json::Map<_, _>>(),
            },
            "root": { "path": "rootfs", "readonly": is_true(context, "/readOnlyRootFilesystem") },
            "mounts": self.mounts()?,
            "linux": {
                "namespaces": namespaces(is_true(&self.pod, "/hostPID"), is_true(&self.pod, "/hostNetwork")),
                "maskedPaths": MASKED,
                "readonlyPaths": READ_ONLY,
                "seccomp": self.seccomp(&capabilities)?,
                // What comes later must come as far as to the container's root for a mount in it to show it; runtimes of
                // Kubernetes do so for `HostToContainer`.
                "rootfsPropagation": if self.hears_of_mounts() { "rslave" } else { "rprivate" },
            },
        }))
    }

    fn hears_of_mounts(&self) -> bool {
        list(self.container(), "/volumeMounts").iter().any(|mount| *at(mount, "/mountPropagation") == "HostToContainer")
    }

    fn seccomp(&self, capabilities: &[String]) -> Result<Value> {
        match at(&self.pod, "/securityContext/seccompProfile/type").as_str() {
            Some("RuntimeDefault") => seccomp::runtime_default(capabilities),
            other => bail!("nobody knows what a runtime filters for {other:?}"),
        }
    }

    fn mounts(&self) -> Result<Vec<Value>> {
        let mut mounts = vec![
            json!({ "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] }),
            json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] }),
            json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "ro"] }),
        ];
        for mount in list(self.container(), "/volumeMounts") {
            mounts.push(self.mount(mount).with_context(|| format!("in the mount {mount}"))?);
        }
        Ok(mounts)
    }

    fn mount(&self, mount: &Value) -> Result<Value> {
        let volume = list(&self.pod, "/volumes").iter().find(|volume| at(volume, "/name") == at(mount, "/name"));
        let source = self.source(volume.context("there is no such volume")?)?;
        let propagation = match at(mount, "/mountPropagation").as_str() {
            Some("HostToContainer") => "rslave",
            None => "rprivate",
            Some(other) => bail!("nobody knows {other}"),
        };
        let access = if *at(mount, "/readOnly") == true { "ro" } else { "rw" };
        let options = ["rbind", propagation, access];
        Ok(json!({ "destination": at(mount, "/mountPath"), "type": "bind", "source": source, "options": options }))
    }

    /// Where the runner has what a volume is made of.
    fn source(&self, volume: &Value) -> Result<PathBuf> {
        if volume.get("configMap").is_some() {
            return self.config_folder();
        }
        if let Some(secret) = volume.get("secret") {
            return self.secret_folder(secret);
        }
        let path = at(volume, "/hostPath/path").as_str().context("the volume is of no kind that is known here")?;
        let path = path.strip_prefix("/var").map_or_else(|| path.to_owned(), |below| format!("{VAR}{below}"));
        if *at(volume, "/hostPath/type") == "DirectoryOrCreate" {
            self.runner.run(["mkdir", "-p", &path])?;
        }
        Ok(path.into())
    }

    /// The files that a kubelet makes of a Secret: all of it, or what `items` names.
    fn secret_folder(&self, volume: &Value) -> Result<PathBuf> {
        let name = at(volume, "/secretName").as_str().context("a Secret without a name")?;
        let secret = self.secrets.get(name).with_context(|| format!("there is no Secret {name}"))?;
        let folder = self.folder.path().join("secrets").join(name);
        fs::create_dir_all(&folder)?;
        let mode = u32::try_from(at(volume, "/defaultMode").as_u64().unwrap_or(0o644))?;
        for (path, key) in files_of(volume, secret) {
            let text = secret.get(key).with_context(|| format!("the Secret {name} has no {key}"))?;
            fs::write(folder.join(path), text)?;
            fs::set_permissions(folder.join(path), fs::Permissions::from_mode(mode))?;
        }
        Ok(folder)
    }

    fn config_folder(&self) -> Result<PathBuf> {
        let folder = self.folder.path().join("config");
        fs::create_dir_all(&folder)?;
        for (name, text) in at(&self.config_map, "/data").as_object().context("an empty ConfigMap")? {
            fs::write(folder.join(name), text.as_str().unwrap_or_default())?;
        }
        Ok(folder)
    }
}

/// What a volume of a Secret calls its files, and which keys are in them.
fn files_of<'a>(volume: &'a Value, secret: &'a Secret) -> Vec<(&'a str, &'a str)> {
    let item = |item: &'a Value| Some((at(item, "/path").as_str()?, at(item, "/key").as_str()?));
    let items: Vec<_> = list(volume, "/items").iter().filter_map(item).collect();
    if items.is_empty() { secret.keys().map(|key| (*key, *key)).collect() } else { items }
}

/// Those that the container does not share with its node.
fn namespaces(shares_processes: bool, shares_network: bool) -> Vec<Value> {
    let own =
        [("mount", true), ("ipc", true), ("cgroup", true), ("pid", !shares_processes), ("network", !shares_network)];
    own.iter().filter(|(_, is_own)| *is_own).map(|(kind, _)| json!({ "type": kind })).collect()
}

/// Runs a program of the machine to its end.
pub(super) fn run(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed: {said}");
    Ok(String::from_utf8(output.stdout)?)
}
