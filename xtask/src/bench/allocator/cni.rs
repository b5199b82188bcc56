//! CNI plugins that are asked for an address: ours beside host-local.

use std::{
    fs,
    io::Write as _,
    net::Ipv4Addr,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lab::Runner;
use serde_json::{Value, json};

use super::{Effort, book, line};
use crate::{
    bench::{
        Programs,
        report::{Line, Ratio, Target, Wanted},
        samples::Samples,
        scratch::Scratch,
    },
    shell,
};

/// Addresses held when a plugin is asked.
const HELD: [usize; 3] = [50, 1_000, 10_000];

/// The network that both plugins give addresses of, and its name.
const SUBNET: &str = "10.8.0.0/16";
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 1);
const NETWORK: &str = "bench";
/// The bridge that the book of leases is for.
const BRIDGE: &str = "rt0";

/// A plugin with the configuration that it is called with.
struct Plugin {
    program: PathBuf,
    conf: Vec<u8>,
}

/// What is measured with so many addresses held.
struct Measured {
    held: usize,
    host_local: Samples,
    ours: Samples,
    /// Ours, with a look at the wire.
    looking: Samples,
}

/// Measures ADD of both in turns.
///
/// # Errors
/// When host-local is not here, or a plugin fails.
pub(super) fn lines(scratch: &Scratch, programs: &Programs, effort: Effort) -> Result<Vec<Line>> {
    let Programs { dupip, allocator: worker, .. } = programs;
    let host_local = shell::find("host-local").context("there is no host-local: cargo xtask setup installs it")?;
    let ours = scratch.disk().join("dupip-ipam");
    symlink(dupip, &ours)?;
    let runner = runner()?;
    let mut measured = HELD.map(Measured::new);
    for round in 1..=effort.rounds {
        eprintln!("bench: plugins, round {round} of {}", effort.rounds);
        for measured in &mut measured {
            let book = scratch.fresh("round")?.join("book");
            scratch.copy(&book::prepare(scratch, worker, measured.held)?, &book)?;
            let data = addresses(scratch, measured.held)?;
            measured.beside(
                &Plugin::host_local(&host_local, &data)?,
                &data,
                &Plugin::ours(&ours, &book, false)?,
                effort,
            )?;
            if let Some(runner) = runner.as_ref().filter(|_| measured.held == HELD[0]) {
                let looking = Plugin::ours(&ours, &book, true)?;
                let calls = || (0..=effort.calls).map(|n| looking.add("looks", n)).collect::<Result<Vec<_>>>();
                add_round(&mut measured.looking, &runner.inside(calls)?);
            }
        }
    }
    Ok(measured.into_iter().flat_map(Measured::lines).collect())
}

/// A bridge of that name in a namespace of its own, to look at before an address is given. Only for root.
fn runner() -> Result<Option<Runner>> {
    if !shell::is_root() {
        eprintln!("bench: not root, so there is no bridge that the plugin could look at");
        return Ok(None);
    }
    let runner = Runner::new()?;
    // The runner keeps its links until it ends.
    runner.run(["ip", "link", "add", BRIDGE, "up", "type", "bridge"])?;
    Ok(Some(runner))
}

/// Host-local's files for so many addresses, as it makes them: one for each, called after it, with its holder.
fn addresses(scratch: &Scratch, held: usize) -> Result<PathBuf> {
    let data = scratch.disk().join(format!("host-local-{held}"));
    let folder = data.join(NETWORK);
    if folder.exists() {
        return Ok(data);
    }
    fs::create_dir_all(&folder)?;
    let addresses = (GATEWAY.to_bits() + 1..).map(Ipv4Addr::from_bits).take(held);
    for (n, address) in addresses.enumerate() {
        fs::write(folder.join(address.to_string()), format!("{}\r\neth0", container("held", n)))?;
        fs::write(folder.join("last_reserved_ip.0"), address.to_string())?;
    }
    Ok(data)
}

impl Plugin {
    fn new(program: &Path, ipam: &Value) -> Result<Self> {
        let conf = json!({
            "cniVersion": "1.0.0", "name": NETWORK, "type": "bridge", "bridge": BRIDGE, "ipam": ipam,
        });
        Ok(Self { program: program.to_owned(), conf: serde_json::to_vec(&conf)? })
    }

    fn host_local(program: &Path, data: &Path) -> Result<Self> {
        Self::new(program, &json!({ "type": "host-local", "ranges": [[{ "subnet": SUBNET }]], "dataDir": data }))
    }

    /// Ours, without an agent to ask.
    fn ours(program: &Path, book: &Path, looks: bool) -> Result<Self> {
        let mut ipam = json!({
            "type": "dupip-ipam", "ranges": [[{ "subnet": SUBNET }]], "database": book, "socket": "/nonexistent/dupip.sock",
        });
        if let (false, Some(ipam)) = (looks, ipam.as_object_mut()) {
            ipam.insert("probe".to_owned(), Value::Bool(false));
        }
        Self::new(program, &ipam)
    }

    /// Asks for an address for a new container. Answers how long that took, from start to end of the process.
    fn add(&self, whose: &str, n: usize) -> Result<Duration> {
        self.ask(whose, n).map(|(took, _)| took)
    }

    fn ask(&self, whose: &str, n: usize) -> Result<(Duration, Ipv4Addr)> {
        let mut command = Command::new(&self.program);
        command.env_clear().envs([("CNI_COMMAND", "ADD"), ("CNI_IFNAME", "eth0"), ("CNI_NETNS", "/proc/self/ns/net")]);
        command
            .env("CNI_CONTAINERID", container(whose, n))
            .env("CNI_PATH", self.program.parent().unwrap_or(Path::new("/")));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let start = Instant::now();
        let mut child = command.spawn().with_context(|| format!("cannot start {}", self.program.display()))?;
        child.stdin.take().context("a plugin has no input")?.write_all(&self.conf)?;
        let output = child.wait_with_output()?;
        let took = start.elapsed();
        let said = String::from_utf8_lossy(&output.stdout);
        let why = || format!("{} refuses: {said} {}", self.program.display(), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), why());
        Ok((took, granted(&said).with_context(why)?))
    }
}

impl Measured {
    fn new(held: usize) -> Self {
        Self { held, host_local: Samples::default(), ours: Samples::default(), looking: Samples::default() }
    }

    /// Asks one and the other, again and again. What host-local gives is taken back at once, so that the number of its
    /// files stays; ours holds a few more at the end.
    fn beside(&mut self, host_local: &Plugin, data: &Path, ours: &Plugin, effort: Effort) -> Result<()> {
        let mut times = [Vec::new(), Vec::new()];
        // The first call finds nothing in the caches, and does not count.
        for n in 0..=effort.calls {
            let (theirs, address) = host_local.ask("asks", n)?;
            fs::remove_file(data.join(NETWORK).join(address.to_string()))?;
            let [of_host_local, of_ours] = &mut times;
            of_host_local.push(theirs);
            of_ours.push(ours.add("asks", n)?);
        }
        let [of_host_local, of_ours] = times;
        add_round(&mut self.host_local, &of_host_local);
        add_round(&mut self.ours, &of_ours);
        Ok(())
    }

    fn lines(self) -> Vec<Line> {
        let beside = |samples: &Samples| {
            let speed = samples.speed_beside(&self.host_local)?;
            Some(Ratio { times: speed, of: "host-local" })
        };
        let wanted = match self.held {
            50 => Some(Wanted::MoreThan(1.0)),
            10_000 => Some(Wanted::AtLeast(10.0)),
            _ => None,
        };
        let (ours, looking) = (beside(&self.ours), beside(&self.looking));
        let targets = ours.zip(wanted).map(|(ratio, wanted)| Target::ratio(ratio, wanted));
        let line = |what: &str, samples| line(format!("CNI ADD {what}"), Some(self.held), 1, samples);
        let both = [line("host-local", &self.host_local), line("dupip, probe off", &self.ours).beside(ours, targets)];
        let looking = (self.looking.len() > 0).then(|| line("dupip, probes", &self.looking).beside(looking, None));
        both.into_iter().chain(looking).collect()
    }
}

/// Calls that came one after the other, with something else in between; the first does not count.
fn add_round(samples: &mut Samples, times: &[Duration]) {
    let times = times.get(1..).unwrap_or_default();
    samples.add_round(times, times.iter().sum());
}

/// A name as long as a container's usually is.
fn container(whose: &str, n: usize) -> String {
    format!("{whose:0>32}{n:0>32}")
}

/// The address in a plugin's answer.
fn granted(answer: &str) -> Option<Ipv4Addr> {
    let answer: Value = serde_json::from_str(answer).ok()?;
    let address = answer.pointer("/ips/0/address")?.as_str()?;
    address.split('/').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answers_address_is_read() {
        let answer =
            r#"{"cniVersion": "1.0.0", "ips": [{"address": "10.8.0.2/16", "gateway": "10.8.0.1"}], "dns": {}}"#;
        assert_eq!(granted(answer), Some(Ipv4Addr::new(10, 8, 0, 2)));
        assert_eq!(granted(r#"{"code": 11, "msg": "full"}"#), None);
    }

    #[test]
    fn both_are_asked_the_same() {
        let conf = |plugin: Plugin| serde_json::from_slice::<Value>(&plugin.conf).unwrap();
        let theirs = conf(Plugin::host_local(Path::new("/a"), Path::new("/data")).unwrap());
        let ours = conf(Plugin::ours(Path::new("/b"), Path::new("/book"), false).unwrap());
        assert_eq!(theirs["ipam"]["ranges"], ours["ipam"]["ranges"]);
        assert_eq!((&ours["ipam"]["probe"], &ours["ipam"]["database"]), (&json!(false), &json!("/book")));
        assert_eq!(conf(Plugin::ours(Path::new("/b"), Path::new("/book"), true).unwrap())["ipam"].get("probe"), None);
    }

    #[test]
    fn the_first_call_does_not_count() {
        let mut samples = Samples::default();
        add_round(&mut samples, &[90, 2, 4].map(Duration::from_millis));
        assert_eq!((samples.len(), samples.median()), (2, Some(2000.0)));
    }
}
