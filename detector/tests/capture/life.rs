//! Attaching, detaching, and what is left when somebody goes.

use std::{
    env,
    ffi::OsStr,
    future::pending,
    io::{BufRead as _, BufReader, Read},
    process::{Child, Command, Stdio},
};

use aya::{
    EbpfLoader,
    maps::{PerCpuHashMap, PerCpuValues, RingBuf},
    programs::{LinkOrder, SchedClassifier, TcAttachType, tc},
};
use detector::{
    capture::{CaptureError, Hook, Side, Tap, TapSettings},
    net::IfIndex,
};

use detector_ebpf::TappedPort;

use crate::{lab::*, wire};

const OURS: &str = detector_ebpf::ARP_PROGRAM;
/// As long as ours, so that it can stand in its place in the object.
const OTHER: &str = "other_arp_tap";

/// Runs the scenario once per hook, each in a namespace of its own.
fn by_each_hook(test: impl AsyncFnOnce(Hook) + Copy + Send + 'static) {
    for hook in [Hook::Tcx, Hook::Clsact] {
        alone(async move || test(hook).await);
    }
}

#[test]
fn what_was_counted_survives_until_the_end_and_then_nothing_is_heard() {
    by_each_hook(async |hook| {
        let (port, next) = (wire("s1", "p1"), wire("s2", "p2"));
        let (mut tap, mut claims) = load(hook);
        tap.attach(port, at(Side::Ingress)).unwrap();
        tap.attach(next, at(Side::Ingress)).unwrap();
        say("s1", &request().broadcast_frame(None));
        hear(&mut claims, 1).await;
        assert_eq!(tap.detach(port).unwrap().unwrap().reported, 1);
        assert_eq!((tap.counters(port), tap.detach(port).unwrap()), (None, None));
        assert_eq!((programs("p1", OURS), programs("p2", OURS)), (0, 1));
        say("s1", &request().broadcast_frame(None));
        say("s2", &request().broadcast_frame(None));
        assert_eq!(hear(&mut claims, 1).await[0].port, next);
    });
}

#[test]
fn attached_twice_it_hears_once() {
    by_each_hook(async |hook| {
        let port = wire("s1", "p1");
        let (mut tap, mut claims) = load(hook);
        for _ in 0..2 {
            tap.attach(port, at(Side::Ingress)).unwrap();
            say("s1", &request().broadcast_frame(None));
            hear(&mut claims, 1).await;
            assert_eq!((tap.counters(port).unwrap().seen(), programs("p1", OURS)), (1, 1));
        }
    });
}

#[test]
fn two_ports_of_one_slot_are_counted_each_for_itself() {
    alone(async || {
        let slot = TappedPort::slot(1000);
        let other = (1001..).find(|index| TappedPort::slot(*index) == slot).unwrap();
        ip(&format!(
            "link add p1 index 1000 type veth peer name s1\nlink add p2 index {other} type veth peer name s2\n\
             link set s1 up\nlink set p1 up\nlink set s2 up\nlink set p2 up"
        ));
        let (first, second) = (index("p1"), index("p2"));
        let (mut tap, mut claims) = load(Hook::Auto);
        let hears_alone = async |tap: &Tap, claims: &mut _, from: &str, port, others| {
            say(from, &request().broadcast_frame(None));
            assert_eq!(hear(claims, 1).await[0].port, port);
            assert_eq!(tap.counters(port).unwrap().reported, 1);
            let counted = [first, second].map(|port| tap.counters(port).map(|counters| counters.reported));
            assert_eq!(counted, others);
        };
        tap.attach(first, at(Side::Ingress)).unwrap();
        tap.attach(second, at(Side::Ingress)).unwrap();
        hears_alone(&tap, &mut claims, "s2", second, [Some(0), Some(1)]).await;
        hears_alone(&tap, &mut claims, "s1", first, [Some(1), Some(1)]).await;
        // The slot is free, and goes to whoever comes next.
        assert_eq!(tap.detach(first).unwrap().unwrap().reported, 1);
        assert_eq!(tap.counters(second).unwrap().reported, 1);
        tap.attach(second, at(Side::Ingress)).unwrap();
        hears_alone(&tap, &mut claims, "s2", second, [None, Some(1)]).await;
        tap.attach(first, at(Side::Ingress)).unwrap();
        hears_alone(&tap, &mut claims, "s1", first, [Some(1), Some(1)]).await;
    });
}

#[test]
fn what_was_attached_at_once_is_settled_and_goes_with_the_agent() {
    alone(async || {
        let port = wire("s1", "p1");
        let (mut tap, mut claims) = load(Hook::Tcx);
        let by_link = || SchedClassifier::query_tcx("p1", TcAttachType::Ingress).unwrap().1.len();
        tap.attach_at_once(port, at(Side::Ingress)).unwrap();
        say("s1", &request().broadcast_frame(None));
        hear(&mut claims, 1).await;
        assert_eq!((programs("p1", OURS), by_link()), (1, 0));
        for _ in 0..2 {
            tap.settle(port).unwrap();
            assert_eq!((programs("p1", OURS), by_link()), (1, 1));
        }
        say("s1", &request().broadcast_frame(None));
        hear(&mut claims, 1).await;
        assert_eq!(tap.counters(port).unwrap().seen(), 2, "what was counted before it was settled is not forgotten");
        drop(tap);
        assert_eq!(programs("p1", OURS), 0);
    });
}

#[test]
fn another_program_on_the_hook_stays_alive() {
    by_each_hook(async |hook| {
        let port = wire("s1", "p1");
        let renamed = rename(wire::OBJECT);
        let mut other = EbpfLoader::new().load(&renamed).unwrap();
        let options = match hook {
            Hook::Clsact => {
                tc::qdisc_add_clsact("p1").unwrap();
                tc::TcAttachOptions::Netlink(tc::NlOptions::default())
            }
            _ => tc::TcAttachOptions::TcxOrder(LinkOrder::default()),
        };
        let program = wire::program(&mut other, OTHER);
        program.attach_with_options("p1", TcAttachType::Ingress, options).unwrap();
        let mut ports: PerCpuHashMap<_, u32, [u64; TappedPort::WORDS]> =
            other.take_map(detector_ebpf::PORTS).unwrap().try_into().unwrap();
        let on_each = vec![TappedPort::new(port.get(), 1).to_words(); aya::util::nr_cpus().unwrap()];
        ports.insert(port.get(), PerCpuValues::try_from(on_each).unwrap(), 0).unwrap();
        let mut heard_by_other = RingBuf::try_from(other.take_map(detector_ebpf::EVENTS).unwrap()).unwrap();

        let (mut tap, mut claims) = load(hook);
        tap.attach(port, at(Side::Ingress)).unwrap();
        say("s1", &request().broadcast_frame(None));
        hear(&mut claims, 1).await;
        until("the other program has heard it too", || heard_by_other.next().is_some()).await;

        tap.detach(port).unwrap();
        assert_eq!((programs("p1", OURS), programs("p1", OTHER)), (0, 1));
        say("s1", &request().broadcast_frame(None));
        until("the other program hears alone", || heard_by_other.next().is_some()).await;
    });
}

/// The object with the program under another name, as somebody else's would be.
fn rename(object: &[u8]) -> Vec<u8> {
    let mut renamed = object.to_vec();
    while let Some(at) = renamed.windows(OURS.len()).position(|name| name == OURS.as_bytes()) {
        renamed[at..at + OURS.len()].copy_from_slice(OTHER.as_bytes());
    }
    renamed
}

#[test]
fn a_port_deleted_while_tapped_is_detached_without_complaint() {
    by_each_hook(async |hook| {
        let (port, next) = (wire("s1", "p1"), wire("s2", "p2"));
        let (mut tap, mut claims) = load(hook);
        tap.attach(port, at(Side::Ingress)).unwrap();
        tap.attach(next, at(Side::Ingress)).unwrap();
        say("s1", &request().broadcast_frame(None));
        ip("link del p1\n");
        assert_eq!(hear(&mut claims, 1).await[0].port, port);
        assert_eq!(tap.detach(port).unwrap().unwrap().reported, 1);
        assert_eq!(tap.detach(port).unwrap(), None);
        assert!(matches!(tap.attach(port, at(Side::Ingress)), Err(CaptureError::Gone { .. })));
        assert_eq!(tap.counters(port), None);
        say("s2", &request().broadcast_frame(None));
        assert_eq!(hear(&mut claims, 1).await[0].port, next);
    });
}

#[test]
fn an_index_that_went_to_another_interface_is_tapped_there() {
    by_each_hook(async |hook| {
        let port = wire("s1", "p1");
        let (mut tap, mut claims) = load(hook);
        tap.attach(port, at(Side::Ingress)).unwrap();
        ip(&format!("link del p1\nlink add p2 index {port} type veth peer name s2\nlink set p2 up\nlink set s2 up\n"));
        assert_eq!((index("p2"), programs("p2", OURS)), (port, 0));
        tap.attach(port, at(Side::Ingress)).unwrap();
        say("s2", &request().broadcast_frame(None));
        assert_eq!(hear(&mut claims, 1).await[0].port, port);
        assert_eq!(tap.counters(port).unwrap().seen(), 1);
    });
}

/// The old filter's priority and handle are those of the first filter that anybody adds to the new interface.
#[test]
fn an_index_that_went_to_another_interface_is_left_alone_there() {
    alone(async || {
        let port = wire("s1", "p1");
        let (mut tap, _claims) = load(Hook::Clsact);
        tap.attach(port, at(Side::Ingress)).unwrap();
        ip(&format!("link del p1\nlink add p2 index {port} type veth peer name s2\n"));
        tc::qdisc_add_clsact("p2").unwrap();
        let renamed = rename(wire::OBJECT);
        let mut other = EbpfLoader::new().load(&renamed).unwrap();
        let options = tc::TcAttachOptions::Netlink(tc::NlOptions::default());
        wire::program(&mut other, OTHER).attach_with_options("p2", TcAttachType::Ingress, options).unwrap();
        tap.detach(port).unwrap();
        assert_eq!(programs("p2", OTHER), 1, "{}", filters("p2"));
    });
}

#[test]
fn a_port_renamed_while_tapped_is_detached_by_its_new_name() {
    by_each_hook(async |hook| {
        let port = wire("s1", "p1");
        let (mut tap, _claims) = load(hook);
        tap.attach(port, at(Side::Ingress)).unwrap();
        ip("link set p1 down\nlink set p1 name p9\n");
        assert_eq!(programs("p9", OURS), 1);
        tap.detach(port).unwrap();
        assert_eq!(programs("p9", OURS), 0);
    });
}

#[test]
fn an_interface_that_never_was_is_gone() {
    alone(async || {
        let (mut tap, _claims) = load(Hook::Auto);
        let error = tap.attach(IfIndex::new(70_000).unwrap(), at(Side::Ingress)).unwrap_err();
        assert_eq!(error.to_string(), "interface 70000 is gone");
    });
}

#[test]
fn dropped_it_leaves_nothing() {
    by_each_hook(async |hook| {
        let port = wire("s1", "p1");
        let (mut tap, _claims) = load(hook);
        tap.attach(port, at(Side::Ingress)).unwrap();
        assert_eq!(programs("p1", OURS), 1);
        drop(tap);
        assert_eq!(programs("p1", OURS), 0);
    });
}

#[test]
fn without_capabilities_it_says_what_it_lacks() {
    alone(async || {
        caps::clear(None, caps::CapSet::Effective).unwrap();
        let error = Tap::load(&TapSettings::default()).err().unwrap();
        assert!(matches!(error, CaptureError::NotPermitted), "{error:?}");
        assert!(error.to_string().contains("CAP_BPF and CAP_NET_ADMIN"), "{error}");
    });
}

/// Without `CAP_PERFMON` the verifier is as strict as those of kernels before 6.3 are with everybody.
#[test]
fn capabilities_for_bpf_and_networks_are_enough() {
    use caps::{CapSet, Capability, CapsHashSet};
    by_each_hook(async |hook| {
        let port = wire("s1", "p1");
        let enough = CapsHashSet::from([Capability::CAP_BPF, Capability::CAP_NET_ADMIN]);
        caps::set(None, CapSet::Effective, &enough).unwrap();
        load(hook).0.attach(port, at(Side::Ingress)).unwrap();
    });
}

/// Which agent a child process of this test plays: the name of its hook.
pub(crate) const ROLE: &str = "DUPIP_TEST_AGENT";

#[test]
fn a_killed_agent_leaves_nothing() {
    if let Ok(hook) = env::var(ROLE) {
        return agent(if hook == "clsact" { Hook::Clsact } else { Hook::Tcx });
    }
    alone(async || {
        wire("s1", "p1");
        kill(start_agent("life::a_killed_agent_leaves_nothing", "tcx", &[]));
        until("the link is gone", || programs("p1", OURS) == 0).await;
    });
    alone(async || {
        let port = wire("s1", "p1");
        kill(start_agent("life::a_killed_agent_leaves_nothing", "clsact", &[]));
        assert_eq!(programs("p1", OURS), 1, "filters outlive their maker");
        for hook in [Hook::Clsact, Hook::Tcx] {
            let (mut tap, mut claims) = load(hook);
            tap.attach(port, at(Side::Ingress)).unwrap();
            assert_eq!(programs("p1", OURS), 1, "the next agent removes them");
            say("s1", &request().broadcast_frame(None));
            hear(&mut claims, 1).await;
        }
    });
}

#[test]
fn the_program_says_what_it_refuses_if_somebody_reads_it() {
    if env::var(ROLE).is_ok() {
        tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_ansi(false).init();
        return agent(Hook::Auto);
    }
    alone(async || {
        let port = wire("s1", "p1");
        let mut child = start_agent("life::the_program_says_what_it_refuses_if_somebody_reads_it", "auto", &[]);
        let mut frame = request().broadcast_frame(None);
        frame[15] = 6;
        say("s1", &frame);
        let said = read_until(child.stdout.take().unwrap(), "malformed ARP");
        assert!(said.contains("DEBUG") && said.ends_with(&format!("on interface {port}: hardware_type")), "{said}");
        kill(child);
    });
}

/// Taps `p1` until it is killed.
fn agent(hook: Hook) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut tap, _claims) = load(hook);
        tap.attach(index("p1"), at(Side::Ingress)).unwrap();
        println!("tapping");
        pending::<()>().await;
    });
}

/// Starts this test once more, as an agent in a process of its own, and waits until it taps.
pub(crate) fn start_agent(test: &str, role: &str, more: &[(&str, &OsStr)]) -> Child {
    let mut agent = Command::new(env::current_exe().unwrap());
    agent.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(ROLE, role).envs(more.iter().copied());
    agent.stdout(Stdio::piped());
    let mut agent = agent.spawn().unwrap();
    read_until(agent.stdout.as_mut().unwrap(), "tapping");
    agent
}

fn read_until(output: impl Read, text: &str) -> String {
    let mut lines = BufReader::with_capacity(1, output).lines().map(Result::unwrap);
    lines.find(|line| line.contains(text)).unwrap_or_else(|| panic!("ended without saying `{text}`"))
}

pub(crate) fn kill(mut agent: Child) {
    agent.kill().unwrap();
    agent.wait().unwrap();
}
