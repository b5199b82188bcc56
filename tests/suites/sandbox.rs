//! Sandboxes are wired as on a real runner, and do what their plan says.

use std::{collections::BTreeSet, net::Ipv4Addr, time::Duration};

use anyhow::Result;
use lab::{Arp, Bridge, MacAddr, Runner, Sandbox};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 1);
const DEADLINE: Duration = Duration::from_secs(5);

fn rt0() -> Result<Bridge> {
    Runner::new()?.bridge("rt0", "10.8.64.1/24")
}

/// What the runner has learned about an address from the sandboxes' own packets.
fn neighbour(bridge: &Bridge, address: &str) -> Result<String> {
    bridge.runner().run(["ip", "neighbour", "show", address, "dev", bridge.name()])
}

#[test]
fn they_reach_the_gateway_and_each_other() -> Result<()> {
    let bridge = rt0()?;
    let sports = bridge.sandbox("sportsagent").address("10.8.64.2/24").start()?;
    let review = bridge.sandbox("reviewagent").anonymous().address("10.8.64.3/24").start()?;
    let background = sports.keep_pinging(GATEWAY)?;
    for (from, to) in
        [(&sports, GATEWAY), (&review, GATEWAY), (&sports, [10, 8, 64, 3].into()), (&review, [10, 8, 64, 2].into())]
    {
        let report = from.ping(to, 2)?;
        assert_eq!((report.sent, report.lost()), (2, 0), "{} pings {to}", from.name());
    }
    let report = background.stop()?;
    assert!(report.sent > 0 && report.lost() == 0, "{report}");
    assert_eq!(sports.ping([10, 8, 64, 99].into(), 1)?.received, 0);
    Ok(())
}

#[test]
fn they_are_wired_as_on_a_real_runner() -> Result<()> {
    let bridge = rt0()?;
    let plan = bridge.sandbox("sportsagent").address("10.8.64.2/24").address("10.8.64.20/24");
    let sandbox = plan.start()?;
    assert_eq!(sandbox.addresses()?, ["10.8.64.2/24", "10.8.64.20/24"]);
    assert_eq!(sandbox.routes()?[0], "default via 10.8.64.1 dev eth0");
    assert!(
        sandbox.port().strip_prefix("veth").is_some_and(|hex| hex.len() == 8 && u32::from_str_radix(hex, 16).is_ok())
    );
    let port = bridge.runner().run(["ip", "-d", "link", "show", "dev", sandbox.port()])?;
    for words in ["state UP", "master rt0", "veth", "link-netns sportsagent"] {
        assert!(port.contains(words), "no `{words}` in {port}");
    }
    Ok(())
}

#[test]
fn an_anonymous_one_is_known_by_its_process_and_cgroup() -> Result<()> {
    let bridge = rt0()?;
    let sandbox =
        bridge.sandbox("calagent").cgroup("kubepods/pod7/cri-containerd-ab12").address("10.8.64.4/24").start()?;
    assert_eq!(bridge.runner().run(["ip", "netns", "list"])?, "", "it has no name");
    let script = "grep -l cri-containerd-ab12$ /proc/[0-9]*/cgroup | xargs dirname | xargs -I@ readlink @/ns/net";
    assert_eq!(bridge.runner().run(["sh", "-c", script])?.trim(), sandbox.netns()?.to_string());
    Ok(())
}

/// What a sandbox says in ARP at its port, from the moment its link comes up again until it asks for the gateway. The
/// bridge itself would not do to listen on: it swallows what comes while the port is coming up.
fn first_words(sandbox: &Sandbox, bridge: &Bridge) -> Result<String> {
    sandbox.run(["ip", "link", "set", "eth0", "down"])?;
    let listen = ["-n", "-l", "-t", "-Q", "in", "-i", sandbox.port(), "arp"];
    let mut ears = bridge.runner().command("tcpdump").args(listen).spawn()?;
    ears.wait_for_line("listening on", DEADLINE)?;
    sandbox.run(["ip", "link", "set", "eth0", "up"])?;
    sandbox.address("10.8.64.99/24")?;
    sandbox.ping(GATEWAY, 1)?;
    ears.wait_for_line("who-has 10.8.64.1 tell", DEADLINE)?;
    ears.log()
}

#[test]
fn it_is_silent_unless_it_is_to_announce_itself() -> Result<()> {
    let bridge = rt0()?;
    let silent = bridge.sandbox("silent").address("10.8.64.2/24").start()?;
    let loud = bridge.sandbox("loud").announced().address("10.8.64.3/24").start()?;
    let said = first_words(&silent, &bridge)?;
    assert!(!said.contains("who-has 10.8.64.2 tell 10.8.64.2"), "{said}");
    let said = first_words(&loud, &bridge)?;
    assert!(
        said.contains("who-has 10.8.64.3 tell 10.8.64.3")
            || said.contains("who-has 10.8.64.3 (ff:ff:ff:ff:ff:ff) tell 10.8.64.3"),
        "{said}"
    );
    Ok(())
}

#[test]
fn any_frame_can_be_sent() -> Result<()> {
    let bridge = rt0()?;
    bridge.runner().sysctl("net.ipv4.conf.all.arp_accept", "1")?;
    let sandbox = bridge.sandbox("forger").address("10.8.64.2/24").start()?;
    let forged = MacAddr(2, 0, 0, 0, 0, 7);
    sandbox.send_frame(&Arp::announcement(forged, [10, 8, 64, 77].into()).frame())?;
    assert!(neighbour(&bridge, "10.8.64.77")?.contains(&forged.to_string()));
    Ok(())
}

#[test]
fn the_plan_names_the_hardware_address() -> Result<()> {
    let mac = MacAddr(2, 0, 0, 0, 0, 9);
    assert_eq!(rt0()?.sandbox("fixed").mac(mac).start()?.mac()?, mac);
    Ok(())
}

#[test]
fn everybody_who_answers_is_an_owner() -> Result<()> {
    let bridge = rt0()?;
    let sandboxes = ["a", "b", "c"].map(|name| bridge.sandbox(name).address("10.8.64.2/24").start());
    let macs = sandboxes.into_iter().map(|sandbox| sandbox?.mac()).collect::<Result<BTreeSet<_>>>()?;
    assert_eq!(macs.len(), 3);
    assert_eq!(bridge.owners([10, 8, 64, 2].into())?, macs);
    assert_eq!(bridge.owners([10, 8, 64, 3].into())?, BTreeSet::new());
    Ok(())
}

#[test]
fn a_removed_one_leaves_no_port() -> Result<()> {
    let bridge = rt0()?;
    let named = bridge.sandbox("named").start()?;
    let anonymous = bridge.sandbox("anonymous").anonymous().start()?;
    assert_eq!(bridge.ports()?, [named.port(), anonymous.port()].map(str::to_owned).into());
    [named, anonymous].into_iter().try_for_each(Sandbox::remove)?;
    assert_eq!(bridge.ports()?, BTreeSet::new());
    assert_eq!(bridge.runner().run(["ip", "netns", "list"])?, "");
    Ok(())
}

#[test]
fn one_that_cannot_be_made_says_why() -> Result<()> {
    let bridge = rt0()?;
    let error = format!("{:#}", bridge.sandbox("sportsagent").address("10.8.64.256/24").start().unwrap_err());
    assert!(error.contains("cannot make the sandbox sportsagent"), "{error}");
    assert!(error.contains("10.8.64.256/24"), "{error}");
    Ok(())
}
