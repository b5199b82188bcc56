//! A sandbox that claims what all its neighbours have, again and again.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use lab::{Agent, Arp, Bridge, Conversation, Echo, MacAddr, Mode, Sandbox, wait_until};
use serde_json::Value;

use super::{DEADLINE, arrived, cached_by_host, claims, field, parties, role, runner, text, told, wait_row};

const SERVICE: u16 = 7000;
const VICTIMS: [u8; 4] = [2, 3, 4, 5];
/// How often all of them are claimed.
const ROUNDS: usize = 100;

fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 8, 64, last)
}

/// Four who hold the leases for what they have and talk to each other and to the host, and one who came later.
struct Lab {
    agent: Agent,
    hostile: Sandbox,
    talks: Vec<Conversation>,
    _services: Vec<Echo>,
    victims: Vec<Sandbox>,
    bridge: Bridge,
}

impl Lab {
    fn new() -> Result<Self> {
        let (bridge, dupip) = runner()?;
        let plan =
            |last| bridge.sandbox(&format!("victim{last}")).without_ipv6().address(&format!("10.8.64.{last}/24"));
        let victims = bridge.start_all(VICTIMS.map(plan))?;
        for victim in &victims {
            dupip.allocate(victim.name())?;
        }
        let mut agent = dupip.start(Mode::Enforce)?;
        for (victim, last) in victims.iter().zip(VICTIMS) {
            wait_row(&mut agent, address(last), victim.port())?;
        }
        let hostile = bridge.sandbox("hostile").without_ipv6().address("10.8.64.66/24").start()?;
        wait_row(&mut agent, address(66), hostile.port())?;
        let services = victims.iter().map(|victim| victim.echo(SERVICE)).collect::<Result<_>>()?;
        let mut talks = Vec::new();
        for (victim, last) in victims.iter().zip(VICTIMS.into_iter().cycle().skip(1)) {
            talks.push(victim.converse(address(last), SERVICE)?);
            talks.push(bridge.runner().converse(address(last), SERVICE)?);
        }
        Ok(Self { agent, hostile, talks, _services: services, victims, bridge })
    }

    fn wait_talks(&self) -> Result<()> {
        self.talks.iter().try_for_each(|talk| talk.wait_for(20, DEADLINE))
    }

    /// Waits until the hostile one is contained at each of these addresses.
    fn wait_contained(&mut self) -> Result<()> {
        self.agent.wait_until(DEADLINE, "it to be contained at every address", |agent| {
            let told = told(agent)?;
            let contained = |last: &u8| {
                let is_it = |event: &Value| {
                    text(event, "kind") == "contained" && text(event, "address") == address(*last).to_string()
                };
                told.iter().any(is_it)
            };
            Ok(VICTIMS.iter().all(contained).then_some(()))
        })
    }

    /// That everybody but the hostile one has kept what they had, and their connections.
    fn assert_victims_unharmed(&self) -> Result<()> {
        self.wait_talks()?;
        assert!(self.talks.iter().all(|talk| talk.trouble().is_none()));
        for (victim, last) in self.victims.iter().zip(VICTIMS) {
            assert_eq!(victim.addresses()?, [format!("10.8.64.{last}/24")]);
            let mac = victim.mac()?.to_string();
            wait_until(DEADLINE, "the host to know who it is", || {
                Ok((cached_by_host(&self.bridge, address(last))? == mac).then_some(()))
            })?;
        }
        for incident in self.agent.conflicts()? {
            for party in parties(&incident) {
                assert!(text(&party, "role") != "loser" || text(&party, "port") == self.hostile.port(), "{incident}");
            }
        }
        Ok(())
    }
}

fn all_claims(mac: MacAddr) -> Vec<Vec<u8>> {
    let of = |last: u8| {
        let to_all = Arp::announcement(mac, address(last));
        let to_others = VICTIMS.map(|other| Arp::request(mac, address(last), address(other)));
        [to_all].into_iter().chain(to_others)
    };
    VICTIMS.into_iter().flat_map(of).map(|arp| arp.frame()).collect()
}

#[test]
fn it_is_contained_at_each_and_nobody_is_evicted() -> Result<()> {
    let mut lab = Lab::new()?;
    lab.wait_talks()?;
    let claimed = all_claims(lab.hostile.mac()?);
    let one_round = claimed.len();
    lab.hostile.flood((0..ROUNDS).flat_map(|_| claimed.clone()))?;
    lab.wait_contained()?;
    lab.hostile.flood((0..ROUNDS).flat_map(|_| claimed.clone()))?;
    lab.assert_victims_unharmed()?;
    let witness = lab.bridge.tap("vm1")?;
    assert_eq!(arrived(&lab.hostile, &witness, &claimed)?, vec![false; one_round], "not one is heard any more");
    for last in VICTIMS {
        assert_eq!(arrived(&lab.hostile, &witness, &claims(&lab.hostile, &witness, address(last))?)?, [false; 4]);
    }
    let own = claims(&lab.hostile, &witness, address(66))?;
    assert_eq!(arrived(&lab.hostile, &witness, &own)?, [true; 4], "what it says of its own is");
    let incidents = lab.agent.conflicts()?;
    assert_eq!((incidents.len(), role(&incidents[0], lab.hostile.port())?.as_str()), (1, "loser"), "{incidents:?}");
    for result in ["healed", "failed", "given_up"] {
        assert_eq!(lab.agent.metric(&format!("dupip_evictions_total{{result=\"{result}\"}}"))?, Some(0.0), "{result}");
    }
    assert_eq!(lab.hostile.addresses()?, ["10.8.64.66/24"]);
    let others = lab.agent.leases()?.iter().filter(|lease| !text(lease, "owner").starts_with("victim")).count();
    assert_eq!(others, 0, "and nobody was given anything");
    Ok(())
}

/// It takes them for good, one after the other: each time it is the loser, until it is not moved any more.
#[test]
fn one_that_configures_what_it_claims_evicts_only_itself() -> Result<()> {
    let mut lab = Lab::new()?;
    lab.wait_talks()?;
    for last in VICTIMS {
        lab.hostile.run(["ip", "address", "add", &format!("10.8.64.{last}/24"), "dev", "eth0"])?;
    }
    lab.agent.wait_until(2 * DEADLINE, "nothing to be under way", |agent| {
        let incidents = agent.conflicts()?;
        let is_about = |incident: &Value, last: u8| text(incident, "address") == address(last).to_string();
        let known = VICTIMS.iter().all(|last| incidents.iter().any(|incident| is_about(incident, *last)));
        let at_rest = |incident: &Value| text(incident, "status") == "healed" || !field(incident, "held").is_null();
        Ok((known && incidents.iter().all(at_rest)).then_some(()))
    })?;
    lab.assert_victims_unharmed()?;
    let leases = lab.agent.leases()?;
    for (victim, last) in lab.victims.iter().zip(VICTIMS) {
        let lease = leases.iter().find(|lease| text(lease, "address") == address(last).to_string());
        let lease = lease.context("a victim's lease is gone")?;
        assert_eq!((text(lease, "owner"), text(lease, "state")), (victim.name(), "bound"));
    }
    let witness = lab.bridge.tap("vm1")?;
    let left: Vec<_> = lab.hostile.addresses()?;
    for last in VICTIMS.into_iter().filter(|last| left.contains(&format!("10.8.64.{last}/24"))) {
        assert_eq!(arrived(&lab.hostile, &witness, &claims(&lab.hostile, &witness, address(last))?)?, [false; 4]);
    }
    println!("left with {left:?}");
    Ok(())
}
