//! dupip as the IPAM plugin of the reference plugin `bridge`, both as real processes, and beside the real host-local.

use std::{collections::BTreeSet, thread, time::Duration};

use anyhow::{Context as _, Result, bail};
use lab::{Bridge, Command, Dupip, Mode, Runner, wait_until};
use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(20);

/// Where Debian puts the reference plugins.
const REFERENCE: &str = "/usr/lib/cni";
/// Where the plugin `dupip-ipam` is, in the runner.
const OURS: &str = "/run/lab/cni";
const DATABASE: &str = "/run/lab/dupip.db";

/// What a container runtime does.
struct Runtime {
    bridge: Bridge,
    dupip: Dupip,
}

impl Runtime {
    fn new(gateway: &str) -> Result<Self> {
        let bridge = Runner::new()?.bridge("rt0", gateway)?;
        // Unless set, it follows the ports, and the reference plugin's CHECK wants it to be as it was at ADD.
        bridge.runner().run(["ip", "link", "set", "rt0", "address", "02:00:00:00:00:01"])?;
        let dupip = Dupip::on(&bridge)?;
        bridge.runner().run(["mkdir", OURS])?;
        let program = dupip.program().to_str().context("a strange path")?;
        bridge.runner().run(["ln", "-s", program, &format!("{OURS}/dupip-ipam")])?;
        Ok(Self { bridge, dupip })
    }

    fn runner(&self) -> &Runner {
        self.bridge.runner()
    }

    /// The configuration of a network of the reference plugin, with this beside what all have.
    fn conf(&self, version: &str, ipam: &Value) -> Value {
        let mut conf = json!({"cniVersion": version, "name": "lab", "type": "bridge", "bridge": "rt0",
            "isDefaultGateway": true, "ipam": {"type": "dupip-ipam", "database": DATABASE,
            "ranges": [[{"subnet": self.bridge.subnet().to_string()}]]}});
        let (all, own) = (conf.pointer_mut("/ipam").and_then(Value::as_object_mut), ipam.as_object());
        all.into_iter().zip(own).for_each(|(all, own)| all.extend(own.clone()));
        conf
    }

    fn command(&self, plugin: &str, command: &str, container: &str, conf: &Value) -> Result<Command> {
        let plugin = self.runner().command(plugin).env("CNI_COMMAND", command).env("CNI_CONTAINERID", container);
        let plugin = plugin.env("CNI_IFNAME", "eth0").env("CNI_PATH", format!("{OURS}:{REFERENCE}"));
        plugin.env("CNI_NETNS", format!("/run/netns/{container}")).input(&conf.to_string())
    }

    /// What a plugin answers, as the result or, as an error with its code, the failure.
    fn call(&self, plugin: &str, command: &str, container: &str, conf: &Value) -> Result<Value> {
        let output = self.command(plugin, command, container, conf)?.output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            bail!("{command} of {container}: {said} {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(if said.is_empty() { Value::Null } else { serde_json::from_str(&said)? })
    }

    fn reference(&self, command: &str, container: &str, conf: &Value) -> Result<Value> {
        self.call(&format!("{REFERENCE}/bridge"), command, container, conf)
    }

    fn ours(&self, command: &str, container: &str, conf: &Value) -> Result<Value> {
        self.call(&format!("{OURS}/dupip-ipam"), command, container, conf)
    }

    fn container(&self, name: &str, conf: &Value) -> Result<Value> {
        self.runner().run(["ip", "netns", "add", name])?;
        self.reference("ADD", name, conf)
    }

    fn pings(&self, container: &str, address: &str) -> Result<()> {
        let ping = ["ip", "netns", "exec", container, "ping", "-n", "-q", "-c", "2", "-i", "0.1", "-W", "1", address];
        self.runner().run(ping).map(drop)
    }

    /// The leases, each as its address, owner and state.
    fn leases(&self) -> Result<BTreeSet<[String; 3]>> {
        let said = self.dupip.command(["lease", "list", "--offline", "--database", DATABASE, "-o", "json"]).run()?;
        let leases: Vec<Value> = serde_json::from_str(&said)?;
        let field = |lease: &Value, name: &str| lease[name].as_str().unwrap_or_default().to_owned();
        Ok(leases.iter().map(|lease| ["address", "owner", "state"].map(|name| field(lease, name))).collect())
    }
}

fn lease(address: &str, owner: &str, state: &str) -> [String; 3] {
    [address, owner, state].map(str::to_owned)
}

fn address(result: &Value) -> &str {
    result.pointer("/ips/0/address").and_then(Value::as_str).unwrap_or_default()
}

fn fails(result: Result<Value>, code: u32) {
    let error = result.map_or_else(|error| error.to_string(), |result| format!("it gave {result}"));
    assert!(error.contains(&format!("\"code\": {code},")), "{error}");
}

#[test]
fn the_reference_plugin_connects_containers_with_our_addresses() -> Result<()> {
    let runtime = Runtime::new("10.8.64.1/24")?;
    let mut conf = runtime.conf("1.0.0", &json!({}));
    let a = runtime.container("a", &conf)?;
    let b = runtime.container("b", &conf)?;
    assert_eq!([address(&a), address(&b)], ["10.8.64.2/24", "10.8.64.3/24"]);
    runtime.pings("a", "10.8.64.3")?;
    runtime.pings("b", "10.8.64.1")?;
    assert_eq!(
        runtime
            .runner()
            .run(["ip", "netns", "exec", "a", "ip", "-4", "-br", "address", "show", "eth0"])?
            .split_whitespace()
            .last(),
        Some("10.8.64.2/24")
    );
    conf["prevResult"] = a;
    runtime.reference("CHECK", "a", &conf)?;
    runtime.reference("DEL", "a", &conf)?;
    runtime.reference("DEL", "a", &conf)?;
    runtime.reference("DEL", "never", &conf)?;
    fails(runtime.ours("CHECK", "a", &conf), 101);
    assert_eq!(runtime.leases()?, [lease("10.8.64.2", "a", "draining"), lease("10.8.64.3", "b", "bound")].into());
    runtime.pings("b", "10.8.64.1")
}

#[test]
fn an_address_that_something_without_a_lease_uses_is_not_given() -> Result<()> {
    let runtime = Runtime::new("10.8.64.1/24")?;
    let _stranger = runtime.bridge.sandbox("stranger").address("10.8.64.2/24").start()?;
    let a = runtime.container("a", &runtime.conf("1.0.0", &json!({})))?;
    assert_eq!(address(&a), "10.8.64.3/24");
    runtime.pings("a", "10.8.64.2")?;
    assert_eq!(runtime.leases()?, [lease("10.8.64.2", "a", "quarantined"), lease("10.8.64.3", "a", "bound")].into());
    Ok(())
}

#[test]
fn what_the_agent_sees_in_use_is_not_given_even_if_probes_are_forbidden() -> Result<()> {
    let runtime = Runtime::new("10.8.64.1/24")?;
    let _stranger = runtime.bridge.sandbox("stranger").address("10.8.64.2/24").start()?;
    let _agent = runtime.dupip.start(Mode::Observe)?;
    let mut conf = runtime.conf("1.0.0", &json!({"probe": false}));
    assert_eq!(address(&runtime.ours("ADD", "a", &conf)?), "10.8.64.3/24");
    if let Some(database) = conf.pointer_mut("/ipam/database") {
        *database = json!("/run/lab/another.db");
    }
    fails(runtime.ours("ADD", "b", &conf), 7);
    runtime.ours("DEL", "b", &conf)?;
    Ok(())
}

#[test]
fn a_late_del_does_nothing_to_the_container_that_has_the_address_by_now() -> Result<()> {
    let runtime = Runtime::new("10.8.64.1/30")?;
    let conf = runtime.conf("1.0.0", &json!({"cooldown": "1s", "socket": "/run/dupip/dupip.sock"}));
    let agent = runtime.dupip.start(Mode::Observe)?;
    assert_eq!(address(&runtime.container("a", &conf)?), "10.8.64.2/30");
    runtime.reference("DEL", "a", &conf)?;
    fails(runtime.ours("ADD", "b", &conf), 11);
    runtime.runner().run(["ip", "netns", "delete", "a"])?;
    runtime.runner().run(["ip", "netns", "add", "b"])?;
    // A runtime whose ADD failed asks for a DEL before it tries again.
    let add = || match runtime.reference("ADD", "b", &conf) {
        Ok(result) => Ok(Some(result)),
        Err(_) => runtime.reference("DEL", "b", &conf).map(|_| None),
    };
    let b = wait_until(2 * DEADLINE, "the address to be given again", add)?;
    assert_eq!(address(&b), "10.8.64.2/30");
    runtime.ours("DEL", "a", &conf)?;
    assert_eq!(runtime.leases()?, [lease("10.8.64.2", "b", "bound")].into());
    runtime.pings("b", "10.8.64.1")?;
    agent.terminate()?;
    Ok(())
}

#[test]
fn without_an_agent_a_full_network_proves_what_drains_to_be_unused() -> Result<()> {
    let runtime = Runtime::new("10.8.64.1/30")?;
    let conf = runtime.conf("1.0.0", &json!({"cooldown": "1s"}));
    assert_eq!(address(&runtime.container("a", &conf)?), "10.8.64.2/30");
    runtime.ours("DEL", "a", &conf)?;
    fails(runtime.ours("ADD", "b", &conf), 11);
    assert_eq!(runtime.leases()?, [lease("10.8.64.2", "a", "draining")].into(), "the container still has it");
    runtime.runner().run(["ip", "netns", "delete", "a"])?;
    // The kernel takes the namespace apart when it has time.
    wait_until(DEADLINE, "the address to rest", || {
        fails(runtime.ours("ADD", "b", &conf), 11);
        Ok((runtime.leases()? == [lease("10.8.64.2", "a", "cooldown")].into()).then_some(()))
    })?;
    wait_until(DEADLINE, "the address to have rested", || Ok(runtime.ours("ADD", "b", &conf).ok()))?;
    assert_eq!(runtime.leases()?, [lease("10.8.64.2", "b", "bound")].into());
    Ok(())
}

#[test]
fn gc_lets_drain_what_the_runtime_does_not_know_and_status_says_when_it_is_full() -> Result<()> {
    let runtime = Runtime::new("10.8.64.1/29")?;
    let mut conf = runtime.conf("1.1.0", &json!({}));
    runtime.ours("STATUS", "-", &conf)?;
    for container in ["a", "b", "c", "d", "e"] {
        runtime.ours("ADD", container, &conf)?;
    }
    fails(runtime.ours("STATUS", "-", &conf), 50);
    fails(runtime.ours("GC", "-", &conf), 7);
    conf["cni.dev/valid-attachments"] = json!([{"containerID": "a", "ifname": "eth0"}]);
    runtime.ours("GC", "-", &conf)?;
    let states =
        |state: &str| -> Result<usize> { Ok(runtime.leases()?.iter().filter(|lease| lease[2] == state).count()) };
    assert_eq!((states("bound")?, states("draining")?), (1, 4));
    fails(runtime.ours("ADD", "f", &conf), 11);
    let versions = runtime.ours("VERSION", "-", &json!({"cniVersion": "1.1.0"}))?;
    assert_eq!(versions["cniVersion"], "1.1.0");
    Ok(())
}

#[test]
fn an_add_that_was_killed_and_asked_again_gives_the_address_that_was_reserved() -> Result<()> {
    let runtime = Runtime::new("10.8.64.1/24")?;
    let slow = runtime.conf("1.0.0", &json!({"probe": {"count": 10, "interval": "1s"}}));
    let mut add = runtime.command(&format!("{OURS}/dupip-ipam"), "ADD", "a", &slow)?.spawn()?;
    let reserved = [lease("10.8.64.2", "a", "reserved")].into();
    wait_until(DEADLINE, "the reservation", || Ok((runtime.leases().ok().as_ref() == Some(&reserved)).then_some(())))?;
    assert!(add.is_running()?, "it looks for ten seconds");
    add.kill()?;
    let a = runtime.ours("ADD", "a", &runtime.conf("1.0.0", &json!({})))?;
    assert_eq!(address(&a), "10.8.64.2/24");
    assert_eq!(runtime.leases()?, [lease("10.8.64.2", "a", "bound")].into());
    Ok(())
}

#[test]
fn sixty_four_containers_at_once_get_addresses_of_their_own() -> Result<()> {
    let runtime = Runtime::new("10.8.64.1/24")?;
    let conf = runtime.conf("1.0.0", &json!({}));
    let eight = |which: usize| -> Result<Vec<String>> {
        let add = |n: usize| Ok(address(&runtime.ours("ADD", &format!("c{which}-{n}"), &conf)?).to_owned());
        (0..8).map(add).collect()
    };
    let given: Result<Vec<_>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|which| scope.spawn(move || eight(which))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let given: BTreeSet<_> = given?.into_iter().flatten().collect();
    assert_eq!(given.len(), 64);
    assert_eq!(runtime.leases()?.len(), 64);
    Ok(())
}

#[test]
fn a_network_of_host_local_is_moved_here_by_its_type_alone() -> Result<()> {
    let runtime = Runtime::new("10.8.64.1/24")?;
    // Both have their files in here unless they are told otherwise, and they are not.
    runtime.runner().run(["mount", "-t", "tmpfs", "tmpfs", "/var/lib"])?;
    let resolv = runtime.runner().dir().join("resolv.conf");
    runtime.runner().inside(|| Ok(std::fs::write(&resolv, "nameserver 10.8.64.1\nsearch a b\noptions ndots:5\n")?))?;
    let ipams = [
        json!({"subnet": "10.8.64.0/24"}),
        json!({"subnet": "10.8.65.0/24", "rangeStart": "10.8.65.10", "rangeEnd": "10.8.65.20", "gateway": "10.8.65.254"}),
        json!({"ranges": [[{"subnet": "10.8.66.0/25", "rangeStart": "10.8.66.9"}]], "routes": [{"dst": "0.0.0.0/0"}]}),
        json!({"ranges": [[{"subnet": "10.8.67.0/24", "gateway": "10.8.67.2"}, {"subnet": "10.8.68.0/24"}]],
               "routes": [{"dst": "10.0.0.0/8", "gw": "10.8.67.9"}], "resolvConf": resolv, "dataDir": "/run/lab/x"}),
        json!({"subnet": "10.8.69.0/30"}),
    ];
    for (ipam, version) in ipams.iter().zip(["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.0.0"]) {
        let mut ipam = ipam.clone();
        let mut answers = Vec::new();
        for (plugin, kind) in [(REFERENCE, "host-local"), (OURS, "dupip-ipam")] {
            ipam["type"] = json!(kind);
            let name = format!("n-{}", answers.len());
            let conf = json!({"cniVersion": version, "name": name, "type": "bridge", "bridge": "rt0", "ipam": ipam});
            answers.push(runtime.call(&format!("{plugin}/{kind}"), "ADD", &format!("c-{version}"), &conf)?);
            if version >= "0.4.0" {
                let mut conf = conf.clone();
                conf["prevResult"] = answers[answers.len() - 1].clone();
                runtime.call(&format!("{plugin}/{kind}"), "CHECK", &format!("c-{version}"), &conf)?;
            }
            runtime.call(&format!("{plugin}/{kind}"), "DEL", &format!("c-{version}"), &conf)?;
        }
        assert_eq!(answers[0], answers[1], "{ipam}");
    }
    Ok(())
}
