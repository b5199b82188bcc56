//! The netlink and sandbox rooms against the kernel, on runners of their own.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "what a test needs and does not get fails the test")]

mod runner;

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::Ipv4Addr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use detector::{
    net::{BridgeName, IfIndex, Ipv4Net, Mac},
    netlink::{
        Error, Event, Events, Host, HostNeighbour, Inside, NetnsFile, Nsid, Peer, Port, PortKind, PortSurvey,
        Readdress, Readdressed, Survey, readdress,
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
        ip("link add other type bridge");
        ip("link add veth9 master other type veth peer name veth10");

        let survey = Host::open().unwrap().survey(rt0()).await.unwrap();
        assert_eq!((survey.bridge.name, survey.bridge.up), (rt0(), true));
        assert_eq!(survey.bridge.index, index_of("-o link show rt0"));
        assert_eq!(survey.addresses, [net("10.8.64.1/24")]);
        let names: Vec<_> = survey.ports.iter().map(|port| port.port.name.as_str()).collect();
        assert_eq!(names.len(), 5, "{names:?}");

        let sports = port(&survey, "veth1");
        let Inside::Seen(eth0) = &sports.inside else { panic!("{:?}", sports.inside) };
        assert_eq!((eth0.name.as_str(), eth0.up), ("eth0", true));
        assert_eq!(eth0.addresses, [net("10.8.64.2/24")]);
        let mac: Mac = ip("-n sportsagent -br link show eth0").split_whitespace().nth(2).unwrap().parse().unwrap();
        assert_eq!(eth0.mac, mac);
        assert_eq!(sports.port.peer.unwrap().index, index_of("-n sportsagent -o link show eth0"));
        assert_eq!(sports.port.kind, PortKind::Veth);
        let identity = SandboxIdentity::of(sports.netns.as_ref().unwrap());
        assert_eq!((identity.name.as_deref(), identity.source), (Some("sportsagent"), NameSource::NamedNetns));

        let Inside::Seen(review) = &port(&survey, "veth2").inside else { panic!() };
        assert_eq!(review.addresses, [net("10.8.64.2/24"), net("10.8.64.22/24")]);
        let Inside::Seen(empty) = &port(&survey, "veth3").inside else { panic!() };
        assert_eq!((empty.addresses.len(), empty.up), (0, false));
        assert!(matches!(port(&survey, "tap0").inside, Inside::NoPeer));
        assert_eq!(port(&survey, "tap0").port.kind, PortKind::Tap);
        assert!(matches!(port(&survey, "here0").inside, Inside::NoPeer));
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
fn a_namespace_that_nothing_leads_into_hides_no_other() {
    on_a_runner(|| async {
        make_bridge();
        make_sandbox("lost", "veth1", "10.8.64.2/24");
        make_sandbox("found", "veth2", "10.8.64.3/24");
        // Only this file keeps it now.
        let held = NetnsFile::open("/run/netns/lost".as_ref()).unwrap();
        ip("netns del lost");

        let mut host = Host::open().unwrap();
        let survey = host.survey(rt0()).await.unwrap();
        let lost = port(&survey, "veth1");
        assert!(matches!(lost.inside, Inside::Unreachable(Error::NoWayIn(_))), "{:?}", lost.inside);
        assert_eq!(lost.netns, None);
        assert!(matches!(&port(&survey, "veth2").inside, Inside::Seen(eth0) if eth0.addresses.len() == 1));
        let again = host.survey_port(lost.port.clone()).await;
        assert!(matches!(again.inside, Inside::Unreachable(Error::NoWayIn(_))), "{:?}", again.inside);
        drop(held);
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
        assert!(matches!(after.inside, Inside::Seen(eth0) if eth0.addresses == [net("10.8.64.9/24")]));
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
