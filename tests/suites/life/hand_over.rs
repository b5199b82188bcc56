//! Addresses that change hands as they may, and what an old owner does who has not quite gone.

use anyhow::Result;
use lab::{Agent, Arp, Bridge, Dupip, Mode, Sandbox};

use super::{CONTESTED, DEADLINE, duplicates, event, field, incident, mark, parties, row, rows, runner, text, told};

/// Scenario 21.
#[test]
fn a_lease_holder_may_announce_itself_as_often_as_it_likes() -> Result<()> {
    let (bridge, dupip) = runner()?;
    dupip.allocate("holder")?;
    let holder = bridge.sandbox("holder").address("10.8.64.2/24").announced().start()?;
    let mut agent = dupip.start(Mode::Enforce)?;
    let mac = holder.mac()?;
    let gratuitous = Arp::reply(mac, CONTESTED, lab::MacAddr::broadcast(), CONTESTED);
    for _ in 0..200 {
        holder.send_frame(&Arp::announcement(mac, CONTESTED).frame())?;
        holder.send_frame(&gratuitous.frame())?;
    }
    holder.run(["arping", "-U", "-c", "2", "-I", "eth0", "10.8.64.2"])?;
    mark(&mut agent, 1, |frame| holder.send_frame(frame))?;
    assert_eq!(told(&agent)?, []);
    assert_eq!((duplicates(&agent)?, agent.conflicts()?.len()), (Some(0.0), 0));
    let of_holder = row(&mut agent, CONTESTED)?;
    assert_eq!((text(&of_holder, "state"), text(&of_holder, "sandbox")), ("ok", "holder"));
    Ok(())
}

/// The hardware address that a neighbour table has for an address.
fn cached(neighbours: &str) -> &str {
    neighbours.split_whitespace().skip_while(|word| *word != "lladdr").nth(1).unwrap_or_default()
}

/// Scenario 22.
#[test]
fn an_address_that_comes_back_on_a_new_port_has_moved_and_everybodys_caches_are_right() -> Result<()> {
    let (bridge, dupip) = runner()?;
    // A bridge that changes its hardware address with its ports forgets all its neighbours each time.
    bridge.runner().run(["ip", "link", "set", "rt0", "address", "02:00:00:00:00:01"])?;
    let peer = bridge.sandbox("peer").address("10.8.64.3/24").start()?;
    let mut agent = dupip.start(Mode::Enforce)?;
    let before = bridge.sandbox("a").address("10.8.64.2/24").without_ipv6().start()?;
    row(&mut agent, CONTESTED)?;
    assert_eq!(peer.ping(CONTESTED, 1)?.lost(), 0);
    bridge.runner().run(["ping", "-n", "-q", "-c", "1", "10.8.64.2"])?;
    let of_peer = || peer.run(["ip", "neighbour", "show", "10.8.64.2", "dev", "eth0"]);
    let of_host = || bridge.runner().run(["ip", "neighbour", "show", "10.8.64.2", "dev", "rt0"]);
    let (old_port, old_mac) = (before.port().to_owned(), before.mac()?.to_string());
    assert_eq!((cached(&of_peer()?), cached(&of_host()?)), (&*old_mac, &*old_mac));
    before.remove()?;
    agent.wait_until(DEADLINE, "the address to be nobody's", |agent| {
        Ok(rows(agent, CONTESTED)?.is_empty().then_some(()))
    })?;
    let after = bridge.sandbox("a").address("10.8.64.2/24").without_ipv6().start()?;
    let moved = event(&mut agent, "moved")?;
    assert_eq!((text(&moved, "address"), text(&moved, "severity")), ("10.8.64.2", "info"));
    let message = text(&moved, "message");
    for port in [&old_port, after.port()] {
        assert!(message.contains(port), "{message}");
    }
    let mac = after.mac()?.to_string();
    agent.wait_until(DEADLINE, "both caches to have the new hardware address", |_| {
        Ok(([cached(&of_peer()?), cached(&of_host()?)] == [&*mac; 2]).then_some(()))
    })?;
    assert_eq!(told(&agent)?, [("moved".to_owned(), "10.8.64.2".to_owned())]);
    assert_eq!(agent.metric("dupip_moves_total{bridge=\"rt0\"}")?, Some(1.0));
    assert_eq!((duplicates(&agent)?, agent.conflicts()?.len()), (Some(0.0), 0));
    Ok(())
}

/// An old sandbox that lingers, and a new one that has been given its address. The old one says nothing by itself, and
/// answers nobody.
struct Lingering {
    bridge: Bridge,
    agent: Agent,
    old: Sandbox,
    new: Sandbox,
    witness: lab::Tap,
}

impl Lingering {
    fn new() -> Result<Self> {
        let (bridge, dupip): (_, Dupip) = runner()?;
        dupip.allocate("new")?;
        let mut agent = dupip.start(Mode::Enforce)?;
        let witness = bridge.tap("vm1")?;
        let silent = |name: &str| bridge.sandbox(name).without_ipv6().address("10.8.64.2/24");
        let old = silent("old").sysctl("net.ipv4.conf.all.arp_ignore", "8").start()?;
        row(&mut agent, CONTESTED)?;
        let new = silent("new").start()?;
        let lingers = event(&mut agent, "info")?;
        assert_eq!((text(&lingers, "reason"), text(&lingers, "address")), ("lingers", "10.8.64.2"));
        Ok(Self { bridge, agent, old, new, witness })
    }

    /// Waits until the agent has asked for the address after it gave the old one its time, and has taken in the answers.
    fn wait_asked(&mut self, number: u8) -> Result<()> {
        self.witness.receive(DEADLINE, |frame| {
            Arp::read(frame).filter(|arp| arp.is_request() && arp.sender.is_unspecified() && arp.target == CONTESTED)
        })?;
        let witness = &self.witness;
        mark(&mut self.agent, number, |frame| witness.send_frame(frame))
    }

    fn assert_no_duplicate(&self) -> Result<()> {
        assert_eq!((duplicates(&self.agent)?, self.agent.conflicts()?.len()), (Some(0.0), 0));
        assert_eq!(
            (self.old.addresses()?, self.new.addresses()?),
            (vec!["10.8.64.2/24".to_owned()], vec!["10.8.64.2/24".to_owned()])
        );
        Ok(())
    }
}

/// Scenario 23.
#[test]
fn whoever_lingers_in_silence_is_no_duplicate_and_one_as_soon_as_it_speaks() -> Result<()> {
    let mut lab = Lingering::new()?;
    lab.assert_no_duplicate()?;
    lab.wait_asked(1)?;
    lab.assert_no_duplicate()?;
    // From here on it answers, as it must to be healed.
    lab.old.sysctl("net.ipv4.conf.all.arp_ignore", "0")?;
    lab.old.send_frame(&Arp::request(lab.old.mac()?, CONTESTED, lab.bridge.gateway()).frame())?;
    let duplicate = event(&mut lab.agent, "duplicate")?;
    assert_eq!((text(&duplicate, "address"), text(&duplicate, "reason")), ("10.8.64.2", "request"));
    let healed = incident(&mut lab.agent, "healed")?;
    let roles = [("new", lab.new.port(), "winner"), ("old", lab.old.port(), "loser")];
    assert_eq!(parties(&healed), roles.map(|(name, port, role)| (name.into(), port.into(), role.into())));
    assert_eq!(
        (lab.old.addresses()?, lab.new.addresses()?),
        (vec!["10.8.64.3/24".to_owned()], vec!["10.8.64.2/24".to_owned()])
    );
    assert_eq!(duplicates(&lab.agent)?, Some(1.0));
    Ok(())
}

/// Scenario 23.
#[test]
fn whoever_lingered_in_silence_and_goes_has_handed_the_address_over() -> Result<()> {
    let Lingering { mut agent, old, new, bridge: _bridge, witness: _witness } = Lingering::new()?;
    let (from, to) = (old.port().to_owned(), new.port().to_owned());
    old.remove()?;
    let moved = event(&mut agent, "moved")?;
    let ports: Vec<_> = field(field(&moved, "detail"), "parties")
        .as_array()
        .into_iter()
        .flatten()
        .map(|party| text(party, "port").to_owned())
        .collect();
    assert_eq!(ports, [from, to], "{moved}");
    let kinds: Vec<_> = told(&agent)?.into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, ["info", "moved"]);
    assert_eq!((duplicates(&agent)?, agent.conflicts()?.len()), (Some(0.0), 0));
    assert_eq!(new.addresses()?, ["10.8.64.2/24"]);
    Ok(())
}
