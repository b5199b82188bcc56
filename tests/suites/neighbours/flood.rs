//! One port says more than anybody can listen to, while a real duplicate shows at others (scenarios 31 and 32).

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use lab::{Agent, Arp, Bridge, MacAddr, Mode, Sandbox, Tap};
use serde_json::Value;

use super::{
    DEADLINE, MOST, Witness, field, kinds, own_memory, story, text, wait_for_event, wait_for_ports, with_address,
};

const FLOOD: u32 = 200_000;
const CONTESTED: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 2);
const FLOODER: MacAddr = MacAddr(2, 0, 0, 0, 0, 0xf0);

/// What the agent has counted of claims, over all ports of the bridge.
#[derive(Clone, Copy, Debug)]
struct Counts {
    seen: f64,
    announcements: f64,
    reported: f64,
    absorbed: f64,
    limited: f64,
    lost: f64,
}

impl Counts {
    fn of(agent: &Agent) -> Result<Self> {
        let (status, text) = agent.http("/metrics")?;
        anyhow::ensure!(status == 200, "/metrics answers with status {status}");
        let value = |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
        let sum = |start: &str| text.lines().filter(|line| line.starts_with(start)).filter_map(value).sum();
        Ok(Self {
            seen: sum("dupip_claims_total{"),
            announcements: sum("dupip_claims_total{bridge=\"rt0\",kind=\"gratuitous_request\"}"),
            reported: sum("dupip_reported_total{"),
            absorbed: sum("dupip_absorbed_total{"),
            limited: sum("dupip_limited_total{"),
            lost: sum("dupip_lost_events_total{"),
        })
    }

    /// Waits until so many announcements are counted, each with what became of it.
    fn wait_for(agent: &mut Agent, announcements: f64) -> Result<Self> {
        agent.wait_until(DEADLINE, &format!("{announcements} announcements to be counted"), |agent| {
            let counts = Self::of(agent)?;
            let fates = counts.reported + counts.absorbed + counts.limited + counts.lost;
            anyhow::ensure!(counts.announcements <= announcements, "more than were sent: {counts:?}");
            Ok((counts.announcements == announcements && counts.seen == fates).then_some(counts))
        })
    }
}

/// Announcements of as many different addresses, all of them at home here.
fn distinct(count: u32) -> impl Iterator<Item = Vec<u8>> + Send {
    let first = u32::from(Ipv4Addr::new(10, 128, 0, 0));
    (first..first + count).map(|address| Arp::announcement(FLOODER, address.into()).frame())
}

struct Scene {
    agent: Agent,
    bridge: Bridge,
    flooder: Sandbox,
    victim: Sandbox,
    vm: Tap,
    /// Frames that announce something and are not the flood's.
    others: f64,
}

impl Scene {
    fn new(args: &[&str]) -> Result<Self> {
        let (bridge, dupip) = with_address("10.0.0.1/8")?;
        let flooder = bridge.sandbox("flooder").without_ipv6().mac(FLOODER).start()?;
        let victim = bridge.sandbox("victim").without_ipv6().address("10.8.64.2/8").start()?;
        let vm = bridge.tap("vm1")?;
        let agent = dupip.start_with(Mode::Observe, args)?;
        Ok(Self { agent, bridge, flooder, victim, vm, others: 0.0 })
    }

    /// Floods, and in the middle of it a VM takes the victim's address. How many frames of the flood the kernel took.
    fn flood_with_a_duplicate(&mut self) -> Result<f64> {
        let (vm, mut failed) = (&self.vm, None);
        vm.answer([CONTESTED], vm.mac());
        let takes = Arp::announcement(vm.mac(), CONTESTED).frame();
        let frames = distinct(FLOOD).enumerate().map(|(n, frame)| {
            if n == FLOOD as usize / 2 {
                failed = vm.send_frame(&takes).err();
            }
            frame
        });
        let taken = self.flooder.flood(frames)?;
        self.others += 1.0;
        match failed {
            Some(error) => Err(error),
            None => Ok(f64::from(u32::try_from(taken)?)),
        }
    }

    /// The one incident, with the right parties.
    fn the_duplicate(&mut self) -> Result<()> {
        let told = wait_for_event(&mut self.agent, "duplicate")?;
        let parties = told.pointer("/detail/parties").and_then(Value::as_array).context("no parties")?;
        let mut named: Vec<_> = parties.iter().map(|party| (text(party, "port"), text(party, "mac"))).collect();
        named.sort_unstable();
        let (victim, vm) = (self.victim.mac()?.to_string(), self.vm.mac().to_string());
        let mut expected = [(self.victim.port(), victim.as_str()), (self.vm.port(), vm.as_str())];
        expected.sort_unstable();
        assert_eq!((text(&told, "address"), named), ("10.8.64.2", expected.to_vec()));
        assert_eq!(self.agent.conflicts()?.len(), 1);
        assert_eq!(self.agent.metric("duplicate_ip_total{bridge=\"rt0\"}")?, Some(1.0));
        Ok(())
    }
}

#[test]
fn a_flood_is_counted_to_the_last_frame_and_hides_no_duplicate() -> Result<()> {
    let mut scene = Scene::new(&[])?;
    let taken = scene.flood_with_a_duplicate()?;
    scene.the_duplicate()?;
    let counts = Counts::wait_for(&mut scene.agent, taken + scene.others)?;
    assert!(counts.limited > taken / 2.0, "a port has its share and no more: {counts:?}");
    let flood = wait_for_event(&mut scene.agent, "flood")?;
    assert_eq!((text(&flood, "port"), text(&flood, "severity")), (scene.flooder.port(), "warning"));
    let told = story(&scene.agent)?;
    let floods: Vec<_> = told.iter().filter(|event| text(event, "kind").starts_with("flood")).collect();
    assert!(floods.iter().all(|event| text(event, "port") == scene.flooder.port()), "{floods:#?}");
    assert!(own_memory(scene.agent.pid())? < MOST, "{} KiB", own_memory(scene.agent.pid())?);
    Ok(())
}

/// Whoever sets no limit still gets bounded memory, and a count of what there was no room for.
#[test]
fn a_flood_without_limits_is_counted_too() -> Result<()> {
    let mut scene = Scene::new(&["--claims-per-second", "0", "--claims-per-port", "100000"])?;
    let taken = scene.flood_with_a_duplicate()?;
    scene.the_duplicate()?;
    let counts = Counts::wait_for(&mut scene.agent, taken + scene.others)?;
    assert_eq!(counts.limited, 0.0, "{counts:?}");
    assert!(own_memory(scene.agent.pid())? < MOST, "{} KiB", own_memory(scene.agent.pid())?);
    Ok(())
}

#[test]
fn a_known_claim_that_is_repeated_wakes_nobody() -> Result<()> {
    let mut scene = Scene::new(&[])?;
    let frame = Arp::announcement(scene.victim.mac()?, CONTESTED).frame();
    scene.victim.send_frame(&frame)?;
    let row = |agent: &Agent| -> Result<Option<Value>> {
        Ok(agent.table()?.into_iter().find(|row| text(row, "address") == "10.8.64.2"))
    };
    let before = Counts::wait_for(&mut scene.agent, 1.0)?;
    let taken = scene.victim.flood((0..FLOOD).map(|_| frame.clone()))?;
    let taken = f64::from(u32::try_from(taken)?);
    let after = Counts::wait_for(&mut scene.agent, 1.0 + taken)?;
    assert_eq!((after.limited, after.lost), (before.limited, before.lost));
    assert!(after.absorbed - before.absorbed >= taken - 8.0, "{before:?} {after:?}");
    assert!(after.reported - before.reported <= 8.0, "{before:?} {after:?}");
    let row = row(&scene.agent)?.context("the row is gone")?;
    assert!(field(&row, "hits").as_f64().is_some_and(|hits| hits >= taken), "{row}");
    assert_eq!((text(&row, "state"), scene.agent.conflicts()?), ("ok", Vec::new()));
    let mut witness = Witness::on(&scene.bridge)?;
    wait_for_ports(&mut scene.agent, 4)?;
    witness.mark(&mut scene.agent)?;
    assert_eq!(kinds(&story(&scene.agent)?), <[&str; 0]>::default());
    Ok(())
}
