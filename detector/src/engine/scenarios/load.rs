//! Floods, losses, and kernels that say something themselves.

use super::*;

fn kernel_martians(world: &World) -> Vec<(String, Option<u64>, bool)> {
    let martian = |finding: &Finding| match finding {
        Finding::KernelMartian { sender, incident, news, .. } => Some((sender.label(), incident.map(|id| id.0), *news)),
        _ => None,
    };
    world.findings.iter().filter_map(martian).collect()
}

fn martian(from: u32) -> Input {
    Input::KernelMartian(KernelMartian {
        source: CONTESTED,
        target: HOST,
        device: "eth0".to_owned(),
        mac: Some(mac(from)),
    })
}

/// Scenario 31.
#[test]
fn a_flood_is_told_when_it_begins_and_when_it_is_over() {
    let mut world = World::running(Mode::Observe);
    world.opaque(2, "noisy", &[]);
    for _ in 0..20 {
        world.tell(Input::Limited { port: port(2), count: 1000 });
        world.pass(Span::from_secs(1));
    }
    let began = |finding: &Finding| matches!(finding, Finding::Flood(Flood { limited: 1000, .. }));
    let ended = |finding: &Finding| matches!(finding, Finding::FloodEnded(_));
    assert_eq!((world.count(began), world.count(ended)), (1, 0));
    assert!((2..=6).contains(&world.asked("sweep")), "what it said is asked for, now and then");
    world.pass(Span::from_secs(15));
    let Some(Finding::FloodEnded(flood)) = world.findings.last() else { panic!("{:?}", world.findings) };
    assert_eq!((flood.port_name.as_str(), flood.limited), ("veth2", 20_000));
}

#[test]
fn a_flood_ends_with_its_port() {
    let mut world = World::running(Mode::Observe);
    world.opaque(2, "noisy", &[]);
    world.tell(Input::Limited { port: port(2), count: 1 });
    world.leave(2);
    assert!(matches!(world.findings.as_slice(), [Finding::Flood(_), Finding::FloodEnded(_)]));
    world.pass(Span::from_secs(60));
    assert_eq!(world.findings.len(), 2);
}

/// Scenario 32.
#[test]
fn what_was_lost_is_asked_for_but_not_again_and_again() {
    let mut world = World::running(Mode::Observe);
    let before = world.asked("sweep");
    for _ in 0..100 {
        world.tell(Input::ClaimsLost(rt0()));
    }
    assert_eq!(world.asked("sweep"), before + 1);
    world.pass(Span::from_secs(6));
    assert_eq!(world.asked("sweep"), before + 2, "what was lost after the first is not forgotten");
    world.pass(Span::from_secs(3600));
    assert_eq!(world.asked("sweep"), before + 2 + 12, "every few minutes without a reason");
}

#[test]
fn stations_that_fall_silent_together_are_asked_one_after_the_other() {
    let mut world = World::running(Mode::Observe);
    world.opaque(2, "many", &[]);
    for host in 0..1000 {
        let packet = ArpPacket::announcement(mac(2), Ipv4Addr::from(0x0a08_4002 + host % 250 + host / 250 * 256));
        world.engine.handle(Input::Claim(claim(world.now, 2, packet)), world.now);
    }
    world.settle();
    world.pass(Span::from_millis(60_100));
    let at_first = world.asked("poll");
    assert!((1..=30).contains(&at_first), "{at_first} questions at once");
    assert_eq!(world.asked("probe"), 0, "each is asked alone before the others hear of it");
    world.pass(Span::from_secs(60));
    assert_eq!(world.engine.rows().filter(|row| !row.is_host).count(), 0);
}

/// Scenario 18.
#[test]
fn what_a_kernel_logs_is_part_of_the_open_incident() {
    let mut world = World::running(Mode::Observe);
    world.sandbox(2, "sportsagent", &[CONTESTED]);
    world.sandbox(3, "reviewagent", &[CONTESTED]);
    world.tell(martian(3));
    world.tell(martian(3));
    let of = |news| ("reviewagent".to_owned(), Some(1), news);
    assert_eq!(kernel_martians(&world), [of(true), of(false)]);
    assert_eq!(world.incident().sightings.iter().filter(|sighting| sighting.evidence.is_none()).count(), 2);
}

#[test]
fn what_a_kernel_logs_leads_to_whoever_heard_it() {
    let mut world = World::running(Mode::Observe);
    world.opaque(2, "silent", &[CONTESTED]);
    world.sandbox(3, "reviewagent", &[CONTESTED]);
    world.tell(martian(3));
    assert_eq!(world.duplicates(), 1);
}

#[test]
fn what_a_kernel_logs_of_strangers_is_not_ours() {
    let mut world = World::running(Mode::Observe);
    world.sandbox(2, "a", &[CONTESTED]);
    world.tell(martian(77));
    let anonymous = KernelMartian { source: CONTESTED, target: HOST, device: "eth0".to_owned(), mac: None };
    world.tell(Input::KernelMartian(anonymous));
    assert_eq!(world.findings, []);
}

/// Scenario 39.
#[test]
fn without_the_book_a_duplicate_is_told_and_nobody_is_moved() {
    let mut world = World::running(Mode::Enforce);
    world.lease(CONTESTED, "a");
    world.break_next("look_up", 5);
    world.sandbox(2, "a", &[CONTESTED]);
    world.sandbox(3, "b", &[CONTESTED]);
    assert_eq!((world.duplicates(), world.asked("reallocate")), (1, 0));
    assert!(world.count(|finding| matches!(finding, Finding::StoreFailed { .. })) > 0);
    world.pass(Span::from_secs(10));
    assert_eq!((world.at(3), world.incident().status), (vec![address(10)], Status::Healed), "when it is back");
}

#[test]
fn a_book_that_does_not_answer_delays_nothing_for_long() {
    let mut engine = Engine::new(Config::default());
    let mut now = Timestamp::from_nanos(1_000_000_000);
    let networks = vec![Ipv4Net::new(HOST, 24).unwrap()];
    engine.handle(Input::BridgeUp(bridge(BRIDGE_PORT, networks)), now);
    engine.handle(Input::InventoryDone, now);
    for at in [2, 3] {
        let up = Port { index: port(at), name: format!("veth{at}"), bridge: rt0(), pvid: None };
        engine.handle(Input::PortUp(up), now);
        engine.handle(Input::Claim(claim(now, at, ArpPacket::announcement(mac(at), CONTESTED))), now);
    }
    assert_eq!(engine.incidents().count(), 0);
    while let Some(at) = engine.poll_timeout().filter(|_| engine.incidents().count() == 0) {
        now = at;
        engine.handle(Input::Timeout, now);
    }
    assert!(engine.incidents().next().unwrap().time_to_name() <= Span::from_millis(50));
}
