//! The netlink and sandbox rooms against the kernel, on runners of their own.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what a test needs and does not get fails the test"
)]

mod runner;

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::Ipv4Addr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use caps::{CapSet, Capability};
use detector::{
    net::{BridgeName, IfIndex, Ipv4Net, Mac, Reach, VlanId},
    netlink::{
        Behind, Error, Event, Events, Host, HostNeighbour, Inside, LiveAddress, NetnsFile, Nsid, Peer, Port, PortKind,
        PortSurvey, Readdress, Readdressed, Survey, VlanDevice, martian_logging, namespaces, readdress,
    },
    sandbox::{NameSource, SandboxIdentity},
};
use runner::{ip, on_a_runner};

fn rt0() -> BridgeName {
    "rt0".parse().unwrap()
}

fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

/// A bridge rt0 with the gateway's address, up.
fn make_bridge() {
    ip("link add rt0 type bridge");
    ip("addr add 10.8.64.1/24 dev rt0");
    ip("link set rt0 up");
}

/// A named namespace whose eth0 is behind a port of rt0.
fn make_sandbox(name: &str, port: &str, address: &str) {
    ip(&format!("netns add {name}"));
    ip(&format!("link add {port} type veth peer name eth0 netns {name}"));
    ip(&format!("link set {port} master rt0 up"));
    ip(&format!("-n {name} addr add {address} dev eth0"));
    ip(&format!("-n {name} link set eth0 up"));
}

fn index_of(arguments: &str) -> IfIndex {
    IfIndex::new(ip(arguments).split_once(':').unwrap().0.parse().unwrap()).unwrap()
}

fn port<'a>(survey: &'a Survey, name: &str) -> &'a PortSurvey {
    survey.ports.iter().find(|port| port.port.name == name).unwrap()
}

fn seen(port: &PortSurvey) -> &Behind {
    match &port.inside {
        Inside::Seen(behind) => behind,
        other => panic!("{}: {other:?}", port.port.name),
    }
}

/// Runs `bridge` of iproute2 with `arguments` on the runner.
fn bridge(arguments: &str) {
    assert!(
        Command::new("bridge").args(arguments.split_whitespace()).status().unwrap().success(),
        "bridge {arguments}"
    );
}

/// Events up to and with the first for which `last` holds.
async fn until(events: &mut Events, last: impl Fn(&Event) -> bool) -> Vec<Event> {
    let mut seen = Vec::new();
    let all = async {
        while !seen.last().is_some_and(&last) {
            seen.push(events.next().await.unwrap());
        }
    };
    let done = tokio::time::timeout(Duration::from_secs(10), all).await;
    assert!(done.is_ok(), "the event did not come: {seen:?}");
    seen
}

/// A process in a network namespace that nobody named; ends with the value.
struct Anonymous(Child);

impl Anonymous {
    fn start() -> Self {
        let script = ["--net", "sh", "-c", "echo inside; exec sleep 600"];
        let mut child = Command::new("unshare").args(script).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "inside\n");
        Self(child)
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Anonymous {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A control group of the test's own; removed with the value, once it is empty.
struct Cgroup {
    top: PathBuf,
    path: PathBuf,
}

impl Cgroup {
    fn make(name: &str) -> Self {
        let root = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
            .map(PathBuf::from)
            .into_iter()
            .find(|root| root.join("cgroup.procs").exists())
            .expect("the test needs cgroup version 2");
        let top = root.join(format!("dupip-test-{}", std::process::id()));
        let path = top.join(name);
        fs::create_dir_all(&path).unwrap();
        Self { top, path }
    }

    fn take(&self, pid: u32) {
        fs::write(self.path.join("cgroup.procs"), pid.to_string()).unwrap();
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.path);
        let _ = fs::remove_dir(&self.top);
    }
}

#[test]
fn a_survey_shows_the_bridge_its_ports_and_what_is_behind_them() {
    on_a_runner(|| async {
        make_bridge();
        make_sandbox("sportsagent", "veth1", "10.8.64.2/24");
        make_sandbox("reviewagent", "veth2", "10.8.64.2/24");
        ip("-n reviewagent addr add 10.8.64.22/24 dev eth0");
        ip("netns add empty");
        ip("link add veth3 type veth peer name eth0 netns empty");
        ip("link set veth3 master rt0");
        ip("tuntap add tap0 mode tap");
        ip("link set tap0 master rt0");
        ip("link add here0 type veth peer name here1");
        ip("link set here0 master rt0");
        ip("link add card0 link here1 type macvlan");
        ip("link set card0 master rt0");
        ip("link add other type bridge");
        ip("link add veth9 master other type veth peer name veth10");

        let survey = Host::open().unwrap().survey(rt0()).await.unwrap();
        assert_eq!((survey.bridge.name, survey.bridge.up), (rt0(), true));
        assert_eq!(survey.bridge.index, index_of("-o link show rt0"));
        assert_eq!(survey.addresses, [net("10.8.64.1/24")]);
        let names: Vec<_> = survey.ports.iter().map(|port| port.port.name.as_str()).collect();
        assert_eq!(names.len(), 6, "{names:?}");

        let sports = port(&survey, "veth1");
        let Behind { interface: eth0, stacked, macs, forwards } = seen(sports);
        assert!(!*forwards);
        assert_eq!((eth0.name.as_str(), eth0.up), ("eth0", true));
        assert_eq!(eth0.addresses, [net("10.8.64.2/24")]);
        let mac: Mac = ip("-n sportsagent -br link show eth0").split_whitespace().nth(2).unwrap().parse().unwrap();
        assert_eq!((eth0.mac, macs), (mac, &[mac].into()));
        assert_eq!((stacked.len(), sports.reach), (0, Reach::Netns));
        assert_eq!(sports.port.peer.unwrap().index, index_of("-n sportsagent -o link show eth0"));
        assert_eq!(sports.port.kind, PortKind::Veth);
        let identity = SandboxIdentity::of(sports.netns.as_ref().unwrap());
        assert_eq!((identity.name.as_deref(), identity.source), (Some("sportsagent"), NameSource::NamedNetns));

        let review = &seen(port(&survey, "veth2")).interface;
        assert_eq!(review.addresses, [net("10.8.64.2/24"), net("10.8.64.22/24")]);
        let empty = &seen(port(&survey, "veth3")).interface;
        assert_eq!((empty.addresses.len(), empty.up), (0, false));
        assert_eq!(port(&survey, "tap0").port.kind, PortKind::Tap);
        for (name, reach) in [("tap0", Reach::Tap), ("here0", Reach::Local), ("card0", Reach::Other)] {
            let port = port(&survey, name);
            assert!(matches!(port.inside, Inside::NoPeer));
            assert_eq!(port.reach, reach, "{name}");
        }
        assert!(!survey.bridge.vlan_filtering && survey.vlans.is_empty());
        assert!(survey.ports.iter().all(|port| port.port.pvid.is_none()));
    });
}

#[test]
fn what_is_no_bridge_is_said_to_be_none() {
    on_a_runner(|| async {
        let mut host = Host::open().unwrap();
        let missing = host.survey(rt0()).await.unwrap_err();
        assert_eq!(missing.to_string(), "there is no bridge rt0; create it, or start dupip with --wait");
        ip("link add rt0 type veth peer name rt1");
        assert!(matches!(host.survey(rt0()).await, Err(Error::NotABridge(_))));
    });
}

#[test]
fn a_namespace_that_nothing_leads_into_is_seen_by_its_id() {
    on_a_runner(|| async {
        make_bridge();
        make_sandbox("lost", "veth1", "10.8.64.2/24");
        ip("-n lost link add child link eth0 type macvlan mode bridge");
        ip("-n lost addr add 10.8.64.9/24 dev child");
        make_sandbox("found", "veth2", "10.8.64.3/24");
        let mut host = Host::open().unwrap();
        let before = host.survey(rt0()).await.unwrap();
        // Only this file keeps it now.
        let held = NetnsFile::open("/run/netns/lost".as_ref()).unwrap();
        ip("netns del lost");

        let survey = host.survey(rt0()).await.unwrap();
        let lost = port(&survey, "veth1");
        assert_eq!((lost.reach, &lost.netns), (Reach::NetnsById, &None));
        assert_eq!(seen(lost), seen(port(&before, "veth1")));
        assert_eq!(seen(lost).macs.len(), 2);
        assert_eq!(port(&survey, "veth2").reach, Reach::Netns);
        let again = host.survey_port(lost.port.clone()).await;
        assert_eq!((again.reach, seen(&again)), (Reach::NetnsById, seen(lost)));
        drop(held);
    });
}

#[test]
fn a_namespace_that_we_may_not_look_into_hides_no_other_port() {
    on_a_runner(|| async {
        make_bridge();
        make_sandbox("named", "veth1", "10.8.64.2/24");
        make_sandbox("lost", "veth2", "10.8.64.3/24");
        ip("tuntap add tap0 mode tap");
        ip("link set tap0 master rt0");
        let held = NetnsFile::open("/run/netns/lost".as_ref()).unwrap();
        ip("netns del lost");
        let mut host = Host::open().unwrap();
        // The kernel heeds what the asking thread may do now, and that is this one or its children.
        caps::drop(None, CapSet::Effective, Capability::CAP_SYS_ADMIN).unwrap();
        let survey = host.survey(rt0()).await.unwrap();
        let named = port(&survey, "veth1");
        assert_eq!(named.reach, Reach::NetnsById);
        assert_eq!(seen(named).interface.addresses, [net("10.8.64.2/24")]);
        assert!(named.netns.is_some());

        caps::drop(None, CapSet::Effective, Capability::CAP_NET_ADMIN).unwrap();
        let survey = host.survey(rt0()).await.unwrap();
        let named = port(&survey, "veth1");
        assert!(matches!(named.inside, Inside::Unreachable(Error::Enter { .. })), "{:?}", named.inside);
        assert_eq!(named.reach, Reach::ClosedNotPermitted);
        let lost = port(&survey, "veth2");
        assert!(matches!(lost.inside, Inside::Unreachable(Error::NoWayIn(_))), "{:?}", lost.inside);
        assert_eq!(lost.reach, Reach::ClosedNoWayIn);
        let again = host.survey_port(lost.port.clone()).await;
        assert_eq!((again.reach, again.reach.is_closed()), (Reach::ClosedNoWayIn, true));
        assert_eq!(port(&survey, "tap0").reach, Reach::Tap);
        drop(held);
    });
}

#[test]
fn what_stands_on_the_other_end_is_in_use_at_the_port() {
    on_a_runner(|| async {
        make_bridge();
        make_sandbox("blue", "veth1", "10.8.64.2/24");
        for (child, address) in [("child1", "10.8.64.3/24"), ("child2", "10.8.64.4/24")] {
            ip(&format!("-n blue link add {child} link eth0 type macvlan mode bridge"));
            ip(&format!("-n blue addr add {address} dev {child}"));
        }
        ip("-n blue link set child1 up");
        // Another interface's address is not this port's, but its hardware address is the same party's.
        ip("-n blue link add eth1 type veth peer name eth2");
        ip("-n blue addr add 10.8.64.5/24 dev eth1");
        ip("-n blue link set eth1 up");
        // A child of its that was given away is in another's hands.
        ip("netns add green");
        ip("-n blue link add given link eth0 netns green type macvlan mode bridge");
        ip("-n green addr add 10.8.64.6/24 dev given");
        ip("-n green link set given up");

        let survey = Host::open().unwrap().survey(rt0()).await.unwrap();
        let behind = seen(port(&survey, "veth1"));
        let mac = |device: &str| -> Mac {
            ip(&format!("-n blue -br link show {device}")).split_whitespace().nth(2).unwrap().parse().unwrap()
        };
        let index = |device: &str| index_of(&format!("-n blue -o link show {device}"));
        let live = |device: &str, address: &str| LiveAddress {
            vlan: None,
            network: net(address),
            mac: mac(device),
            index: index(device),
        };
        let expected = [live("eth0", "10.8.64.2/24"), live("child1", "10.8.64.3/24")];
        assert_eq!(behind.live().collect::<Vec<_>>(), expected);
        let stacked: Vec<_> = behind.stacked.iter().map(|of| (of.interface.name.as_str(), of.is_live)).collect();
        assert_eq!(stacked, [("child1", true), ("child2", false)]);
        assert_eq!(behind.macs, ["eth0", "child1", "child2", "eth1", "eth2"].map(mac).into());

        ip("-n blue link set eth0 down");
        let again = Host::open().unwrap().survey_port(port(&survey, "veth1").port.clone()).await;
        assert_eq!(seen(&again).live().count(), 0);
    });
}

#[test]
fn a_sandbox_that_bridges_its_other_end_speaks_by_that_bridge() {
    on_a_runner(|| async {
        make_bridge();
        make_sandbox("blue", "veth1", "10.8.64.2/24");
        ip("-n blue link add br0 address 02:00:00:00:00:77 type bridge");
        ip("-n blue link set eth0 master br0");
        ip("-n blue addr add 10.8.64.3/24 dev br0");
        ip("-n blue link set br0 up");
        let survey = Host::open().unwrap().survey(rt0()).await.unwrap();
        let live: Vec<_> = seen(port(&survey, "veth1")).live().map(|of| (of.network.to_string(), of.mac)).collect();
        assert_eq!(live.len(), 2, "{live:?}");
        assert_eq!(live[1], ("10.8.64.3/24".to_owned(), Mac([2, 0, 0, 0, 0, 0x77])));
    });
}

/// Whether the kernel was built with VLAN devices and with bridges that filter VLANs (CONFIG_VLAN_8021Q,
/// CONFIG_BRIDGE_VLAN_FILTERING). Some are not; what can be seen there is another thing, and tested too.
fn has_vlans() -> bool {
    let made =
        Command::new("ip").args("link set rt0 type bridge vlan_filtering 1".split(' ')).status().unwrap().success();
    if made {
        ip("link set rt0 type bridge vlan_filtering 0");
    }
    made
}

/// Without VLANs in the kernel, there are none to be seen, and none can be made.
fn assert_no_vlans(survey: &Survey) {
    let refused = |arguments: &str| !Command::new("ip").args(arguments.split(' ')).status().unwrap().success();
    assert!(refused("link add link rt0 name rt0.20 type vlan id 20"));
    assert!(refused("link add link veth1 name veth1.20 type vlan id 20"));
    assert_eq!((survey.bridge.vlan_filtering, survey.bridge.pvid, survey.vlans.as_slice()), (false, None, &[][..]));
    assert!(survey.ports.iter().all(|port| port.port.pvid.is_none()));
}

#[test]
fn untagged_frames_belong_where_the_bridge_puts_them() {
    on_a_runner(|| async {
        make_bridge();
        make_sandbox("blue", "veth1", "10.8.64.2/24");
        make_sandbox("green", "veth2", "10.8.64.2/24");
        make_sandbox("mute", "veth3", "10.8.64.4/24");
        let mut events = Events::open().unwrap();
        let mut host = Host::open().unwrap();
        if !has_vlans() {
            return assert_no_vlans(&host.survey(rt0()).await.unwrap());
        }
        let vlans = |survey: &Survey| {
            let of = |name| port(survey, name).port.pvid.map(VlanId::get);
            (survey.bridge.vlan_filtering, survey.bridge.pvid.map(VlanId::get), ["veth1", "veth2", "veth3"].map(of))
        };
        bridge("vlan add dev veth2 vid 20 pvid untagged");
        assert_eq!(vlans(&host.survey(rt0()).await.unwrap()), (false, None, [None; 3]));

        ip("link set rt0 type bridge vlan_filtering 1");
        until(&mut events, |event| matches!(event, Event::BridgeUp(bridge) if bridge.vlan_filtering)).await;
        bridge("vlan del dev veth3 vid 1");
        bridge("vlan add dev veth1 vid 30-40");
        assert_eq!(vlans(&host.survey(rt0()).await.unwrap()), (true, Some(1), [Some(1), Some(20), None]));

        let rt0_index = index_of("-o link show rt0");
        bridge("vlan add dev rt0 vid 7 pvid untagged self");
        until(&mut events, |event| *event == Event::VlansChanged { index: rt0_index }).await;
        let index = index_of("-o link show veth3");
        bridge("vlan add dev veth3 vid 20 pvid untagged");
        until(&mut events, |event| *event == Event::VlansChanged { index }).await;
        let survey = host.survey(rt0()).await.unwrap();
        assert_eq!(vlans(&survey), (true, Some(7), [Some(1), Some(20), Some(20)]));

        // Who had the bridge's own choice gets its new one.
        let index_of_first = index_of("-o link show veth1");
        ip("link set rt0 type bridge vlan_default_pvid 50");
        until(&mut events, |event| *event == Event::VlansChanged { index: index_of_first }).await;
        assert_eq!(vlans(&host.survey(rt0()).await.unwrap()), (true, Some(7), [Some(50), Some(20), Some(20)]));

        bridge("vlan del dev veth3 vid 20");
        until(&mut events, |event| *event == Event::VlansChanged { index }).await;
        let alone = host.survey_port(port(&survey, "veth3").port.clone()).await;
        assert_eq!((alone.port.pvid, alone.reach), (None, Reach::Netns));
        let other = host.survey_port(port(&survey, "veth2").port.clone()).await;
        assert_eq!(other.port.pvid.map(VlanId::get), Some(20));
        ip("link set rt0 type bridge vlan_filtering 0");
        let other = host.survey_port(other.port).await;
        assert_eq!(other.port.pvid, None);
        assert_eq!(events.malformed(), 0);
    });
}

#[test]
fn the_host_itself_is_known_in_tagged_domains() {
    on_a_runner(|| async {
        make_bridge();
        make_sandbox("blue", "veth1", "10.8.64.2/24");
        let mut events = Events::open().unwrap();
        if !has_vlans() {
            return assert_no_vlans(&Host::open().unwrap().survey(rt0()).await.unwrap());
        }
        ip("link add link rt0 name rt0.20 type vlan id 20");
        let (on, index) = (index_of("-o link show rt0"), index_of("-o link show rt0.20"));
        until(&mut events, |event| *event == Event::VlanDeviceChanged { on, index }).await;
        ip("addr add 10.8.65.1/24 dev rt0.20");
        let added = Event::AddressAdded { nsid: None, index, address: net("10.8.65.1/24") };
        until(&mut events, |event| *event == added).await;
        ip("link set rt0.20 address 02:00:00:00:00:20");
        // One on something else is not of this bridge.
        ip("link add link veth1 name veth1.20 type vlan id 20");
        ip("-n blue link add link eth0 name eth0.20 type vlan id 20");
        ip("-n blue addr add 10.8.65.2/24 dev eth0.20");
        ip("-n blue link set eth0.20 up");

        let survey = Host::open().unwrap().survey(rt0()).await.unwrap();
        let [VlanDevice { vlan, interface }] = survey.vlans.as_slice() else { panic!("{:?}", survey.vlans) };
        assert_eq!((vlan.get(), interface.index, interface.name.as_str()), (20, index, "rt0.20"));
        assert_eq!((interface.mac, interface.up), (Mac([2, 0, 0, 0, 0, 0x20]), false));
        assert_eq!(interface.addresses, [net("10.8.65.1/24")]);
        assert_eq!(survey.addresses, [net("10.8.64.1/24")]);
        let behind: Vec<_> =
            seen(port(&survey, "veth1")).live().map(|of| (of.vlan.map(VlanId::get), of.network)).collect();
        assert_eq!(behind, [(None, net("10.8.64.2/24")), (Some(20), net("10.8.65.2/24"))]);
        ip("link del rt0.20");
        until(&mut events, |event| *event == Event::VlanDeviceChanged { on, index }).await;
    });
}

#[test]
fn a_namespace_is_said_to_log_martians_or_not() {
    on_a_runner(|| async {
        make_bridge();
        make_sandbox("blue", "veth1", "10.8.64.2/24");
        make_sandbox("green", "veth2", "10.8.64.3/24");
        let set = |netns: &str, sysctl: &str| {
            let script = format!("echo 1 > /proc/sys/net/ipv4/{sysctl}");
            let done = Command::new("ip").args(["netns", "exec", netns, "sh", "-c", &script]).status().unwrap();
            assert!(done.success());
        };
        set("blue", "conf/eth0/log_martians");
        set("blue", "ip_forward");
        set("green", "conf/all/log_martians");
        let (mut own, mut seen) = (0, 0);
        for found in namespaces().await.unwrap() {
            let logging = match martian_logging(&found).await {
                // Of another test that has ended meanwhile.
                Err(Error::OpenNetns { .. }) => continue,
                logging => logging.unwrap(),
            };
            own += u32::from(logging.is_own);
            let of = |name: &str| logging.interfaces.get(name).map(|of| (of.log_martians, of.forwarding));
            if logging.is_own {
                assert_eq!((logging.all, of("rt0"), of("eth0"), of("all")), (false, Some((false, false)), None, None));
                seen += 1;
            } else if found.paths.iter().any(|path| path.ends_with("run/netns/blue")) {
                assert_eq!((logging.all, logging.ip_forward), (false, true));
                assert_eq!((of("eth0"), of("lo")), (Some((true, true)), Some((false, true))));
                seen += 1;
            } else if found.paths.iter().any(|path| path.ends_with("run/netns/green")) {
                assert_eq!((logging.all, logging.ip_forward), (true, false));
                assert_eq!(of("eth0"), Some((true, false)));
                seen += 1;
            }
        }
        assert_eq!((own, seen), (1, 3));
    });
}

#[test]
fn a_leftover_name_is_no_namespace() {
    on_a_runner(|| async {
        make_bridge();
        make_sandbox("good", "veth1", "10.8.64.2/24");
        fs::write("/run/netns/leftover", "").unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, "/run/netns/pipe", rustix::fs::Mode::RUSR).unwrap();
        let refused = NetnsFile::open("/run/netns/leftover".as_ref()).unwrap_err();
        assert!(refused.to_string().contains("not a namespace's file"), "{refused}");
        let survey = Host::open().unwrap().survey(rt0()).await.unwrap();
        assert!(matches!(port(&survey, "veth1").inside, Inside::Seen(_)));
    });
}

#[test]
fn a_namespace_does_not_outlive_its_sandbox_because_of_us() {
    on_a_runner(|| async {
        make_bridge();
        let process = Anonymous::start();
        ip(&format!("link add veth1 type veth peer name eth0 netns {}", process.pid()));
        ip("link set veth1 master rt0 up");
        let mut events = Events::open().unwrap();
        let mut host = Host::open().unwrap();
        let survey = host.survey(rt0()).await.unwrap();
        assert!(matches!(port(&survey, "veth1").inside, Inside::Seen(_)));
        let index = port(&survey, "veth1").port.index;
        drop(process);
        until(&mut events, |event| matches!(event, Event::PortDown { index: gone, .. } if *gone == index)).await;
        drop(survey);
    });
}

#[test]
fn a_port_is_told_of_with_its_first_word_and_so_is_its_end() {
    on_a_runner(|| async {
        make_bridge();
        let mut events = Events::open().unwrap();
        make_sandbox("blue", "veth1", "10.8.64.2/24");
        let index = index_of("-o link show veth1");
        let bridge = index_of("-o link show rt0");
        let peer = index_of("-n blue -o link show eth0");
        let up = until(&mut events, |event| matches!(event, Event::PortUp(_))).await;
        let Some(Event::PortUp(port)) = up.last() else { panic!() };
        assert_eq!((port.index, port.bridge, port.name.as_str()), (index, bridge, "veth1"));
        let Some(Peer { nsid, index: there }) = port.peer else { panic!("{port:?}") };
        assert_eq!(there, peer);

        let added = |wanted: &Event| {
            *wanted == Event::AddressAdded { nsid: Some(nsid), index: peer, address: net("10.8.64.2/24") }
        };
        until(&mut events, added).await;
        ip("-n blue link set eth0 address 02:00:00:00:00:77");
        let mac = Mac([2, 0, 0, 0, 0, 0x77]);
        until(&mut events, |event| {
            matches!(event, Event::PeerChanged { nsid: of, index, mac: now, up: true } if (*of, *index, *now) == (nsid, peer, mac))
        })
        .await;
        ip("-n blue addr del 10.8.64.2/24 dev eth0");
        let removed = |event: &Event| {
            *event == Event::AddressRemoved { nsid: Some(nsid), index: peer, address: net("10.8.64.2/24") }
        };
        until(&mut events, removed).await;

        ip("link set veth1 nomaster");
        until(&mut events, |event| *event == Event::PortDown { index, bridge }).await;
        ip("link set veth1 master rt0");
        until(&mut events, |event| matches!(event, Event::PortUp(again) if again.index == index)).await;
        ip("netns del blue");
        until(&mut events, |event| *event == Event::PortDown { index, bridge }).await;
        assert_eq!(events.malformed(), 0);
    });
}

#[test]
fn a_veth_born_as_a_port_is_a_port_from_the_first_message() {
    on_a_runner(|| async {
        make_bridge();
        ip("netns add blue");
        let mut events = Events::open().unwrap();
        ip("link add veth1 master rt0 type veth peer name eth0 netns blue");
        let seen = until(&mut events, |event| matches!(event, Event::PortUp(_))).await;
        let others = seen.iter().filter(|event| matches!(event, Event::PortUp(_))).count();
        assert_eq!(others, 1);
        assert!(matches!(seen.last(), Some(Event::PortUp(Port { peer: Some(_), .. }))), "{seen:?}");
        let mut host = Host::open().unwrap();
        let Some(Event::PortUp(port)) = seen.last().cloned() else { panic!() };
        let survey = host.survey_port(port).await;
        assert!(matches!(survey.inside, Inside::Seen(_)), "{:?}", survey.inside);
    });
}

#[test]
fn the_bridge_itself_comes_changes_and_goes() {
    on_a_runner(|| async {
        let mut events = Events::open().unwrap();
        make_bridge();
        ip("link add veth1 master rt0 type veth peer name veth2");
        let index = index_of("-o link show rt0");
        until(&mut events, |event| matches!(event, Event::BridgeUp(bridge) if bridge.name == rt0())).await;
        let own = Event::AddressAdded { nsid: None, index, address: net("10.8.64.1/24") };
        until(&mut events, |event| *event == own).await;
        until(&mut events, |event| matches!(event, Event::BridgeUp(bridge) if bridge.up)).await;
        let port = index_of("-o link show veth1");
        ip("link del rt0");
        let end = until(&mut events, |event| matches!(event, Event::BridgeGone(bridge) if bridge.index == index)).await;
        assert!(end.contains(&Event::PortDown { index: port, bridge: index }), "{end:?}");
    });
}

#[test]
fn an_id_that_is_free_again_is_told_of() {
    on_a_runner(|| async {
        make_bridge();
        let mut events = Events::open().unwrap();
        make_sandbox("blue", "veth1", "10.8.64.2/24");
        let up = until(&mut events, |event| matches!(event, Event::PortUp(_))).await;
        let Some(Event::PortUp(Port { peer: Some(Peer { nsid, .. }), .. })) = up.last() else { panic!() };
        ip("netns del blue");
        until(&mut events, |event| *event == Event::NetnsGone(*nsid)).await;
    });
}

#[test]
fn lost_events_are_said_to_be_lost_and_later_ones_come() {
    on_a_runner(|| async {
        make_bridge();
        let mut events = Events::open().unwrap();
        let script: String = (0..12_000u32).map(|n| format!("link set rt0 alias a{n}\n")).collect();
        fs::write("/run/batch", &script).unwrap();
        let mut seen = Vec::new();
        for _ in 0..20 {
            ip("-batch /run/batch");
            if let Event::Overflow = events.next().await.unwrap() {
                seen.push(Event::Overflow);
                break;
            }
        }
        assert_eq!(seen, [Event::Overflow], "32 MiB never filled up");
        make_sandbox("blue", "veth1", "10.8.64.2/24");
        let after = until(&mut events, |event| matches!(event, Event::PortUp(_))).await;
        assert!(!after.contains(&Event::Overflow), "{after:?}");
    });
}

#[test]
fn only_a_wrong_cached_neighbour_of_the_host_is_corrected() {
    on_a_runner(|| async {
        make_bridge();
        let (right, wrong) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
        let bridge = index_of("-o link show rt0");
        let mut host = Host::open().unwrap();
        let mut correct =
            async |last: u8| host.correct_neighbour(bridge, Ipv4Addr::new(10, 8, 64, last), right).await.unwrap();
        ip(&format!("neigh add 10.8.64.2 lladdr {wrong} dev rt0 nud reachable"));
        ip(&format!("neigh add 10.8.64.3 lladdr {wrong} dev rt0 nud permanent"));
        assert_eq!(correct(2).await, HostNeighbour::Replaced(wrong));
        assert_eq!(correct(2).await, HostNeighbour::Right);
        assert_eq!(correct(3).await, HostNeighbour::Static);
        assert_eq!(correct(4).await, HostNeighbour::Unknown);
        let entries = ip("neigh show dev rt0");
        assert!(entries.contains(&format!("10.8.64.2 lladdr {right} STALE")), "{entries}");
        assert!(entries.contains(&format!("10.8.64.3 lladdr {wrong} PERMANENT")), "{entries}");
        assert!(!entries.contains("10.8.64.4"), "{entries}");
    });
}

#[test]
fn a_sandbox_found_behind_a_port_is_readdressed() {
    on_a_runner(|| async {
        make_bridge();
        make_sandbox("blue", "veth1", "10.8.64.2/24");
        ip("-n blue route add default via 10.8.64.1");
        let mut host = Host::open().unwrap();
        let survey = host.survey(rt0()).await.unwrap();
        let peer = port(&survey, "veth1").port.peer.unwrap();
        let change = Readdress { old: Ipv4Addr::new(10, 8, 64, 2), new: Ipv4Addr::new(10, 8, 64, 9), prefix_len: 24 };
        let netns = host.netns(peer.nsid).await.unwrap();
        let done = readdress(&netns, peer.index, change).await.unwrap();
        assert!(matches!(done, Readdressed::Moved { .. }));
        let after = host.survey_port(port(&survey, "veth1").port.clone()).await;
        assert_eq!(seen(&after).interface.addresses, [net("10.8.64.9/24")]);
        assert_eq!(ip("-n blue route show default").trim(), "default via 10.8.64.1 dev eth0");
        assert!(matches!(host.netns(Nsid(4711)).await, Err(Error::NoWayIn(Nsid(4711)))));
    });
}

#[test]
fn an_unnamed_namespace_is_called_after_its_process_and_its_control_group() {
    on_a_runner(|| async {
        make_bridge();
        let cgroup = Cgroup::make("sportsagent");
        let process = Anonymous::start();
        ip(&format!("link add veth1 type veth peer name eth0 netns {}", process.pid()));
        ip("link set veth1 master rt0 up");
        let mut host = Host::open().unwrap();
        let survey = host.survey(rt0()).await.unwrap();
        let found = port(&survey, "veth1").netns.clone().unwrap();
        assert_eq!(found.processes, [process.pid()]);
        cgroup.take(process.pid());
        let identity = SandboxIdentity::of(&found);
        assert_eq!((identity.name.as_deref(), identity.source), (Some("sportsagent"), NameSource::Cgroup));
        assert_eq!(identity.netns, Some(found.id));
        assert!(identity.aliases.contains("sportsagent"));
    });
}
