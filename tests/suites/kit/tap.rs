//! A tap is a port with a station behind it, and nothing else.

use std::{collections::BTreeSet, net::Ipv4Addr};

use anyhow::Result;
use lab::{Arp, Bridge, MacAddr, Runner, Snapshot, Tap, vlan};

use super::{DEADLINE, rt0};

const OWN: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 5);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 6);

fn vm() -> Result<(Bridge, Tap)> {
    let bridge = rt0()?;
    let vm = bridge.tap("vm1")?;
    Ok((bridge, vm))
}

#[test]
fn it_is_a_port_with_no_namespace_behind_it() -> Result<()> {
    let (bridge, vm) = vm()?;
    assert_eq!(bridge.ports()?, [vm.port().to_owned()].into());
    let link = bridge.runner().run(["ip", "-d", "link", "show", "dev", vm.port()])?;
    for words in ["master rt0", "tun type tap", "LOWER_UP"] {
        assert!(link.contains(words), "no `{words}` in {link}");
    }
    assert!(!link.contains("link-netns"), "{link}");
    assert!(!link.contains(&vm.mac().to_string()), "the station's address is not the tap's: {link}");
    Ok(())
}

#[test]
fn frames_go_both_ways() -> Result<()> {
    let (bridge, vm) = vm()?;
    let sandbox = bridge.sandbox("peer").address("10.8.64.2/24").start()?;
    vm.send_frame(&Arp::request(vm.mac(), OWN, [10, 8, 64, 2].into()).frame())?;
    let answer = vm.receive(DEADLINE, |frame| Arp::read(frame).filter(Arp::is_reply))?;
    assert_eq!(answer, Arp::reply(sandbox.mac()?, [10, 8, 64, 2].into(), vm.mac(), OWN));
    Ok(())
}

#[test]
fn it_answers_probes_and_questions_until_it_is_to_be_silent() -> Result<()> {
    let (bridge, vm) = vm()?;
    let second = MacAddr(2, 0, 0, 0, 0, 6);
    vm.answer([OWN], vm.mac());
    vm.answer([OTHER], second);
    assert_eq!(bridge.owners(OWN)?, [vm.mac()].into(), "a probe");
    assert_eq!(bridge.owners(OTHER)?, [second].into());
    assert_eq!(bridge.owners([10, 8, 64, 7].into())?, BTreeSet::new());
    let sandbox = bridge.sandbox("peer").address("10.8.64.2/24").start()?;
    assert_eq!(sandbox.ping(OWN, 1)?.received, 0, "it knows ARP and nothing else");
    let neighbour = sandbox.run(["ip", "neighbour", "show", &OWN.to_string(), "dev", "eth0"])?;
    assert!(neighbour.contains(&vm.mac().to_string()), "a question: {neighbour}");
    vm.hush();
    let answered = vm.answered();
    assert_eq!(bridge.owners(OWN)?, BTreeSet::new());
    vm.speak();
    vm.forget(OTHER);
    assert_eq!(bridge.owners(OWN)?, [vm.mac()].into());
    assert_eq!(bridge.owners(OTHER)?, BTreeSet::new());
    assert_eq!(vm.answered(), answered + 1);
    Ok(())
}

#[test]
fn it_may_be_a_second_owner() -> Result<()> {
    let (bridge, vm) = vm()?;
    let sandbox = bridge.sandbox("victim").address("10.8.64.5/24").start()?;
    vm.answer([OWN], vm.mac());
    assert_eq!(bridge.owners(OWN)?, [sandbox.mac()?, vm.mac()].into());
    Ok(())
}

#[test]
fn in_a_vlan_it_answers_with_the_tag() -> Result<()> {
    let (bridge, vm) = vm()?;
    let asker = bridge.tap("vm2")?;
    vm.answer_in(20, [OWN], vm.mac());
    let question = Arp::request(asker.mac(), OTHER, OWN);
    asker.send_frame(&question.frame())?;
    asker.send_frame(&question.tagged(20))?;
    let (tag, answer) =
        asker.receive(DEADLINE, |frame| Some((vlan(frame), Arp::read(frame).filter(Arp::is_reply)?)))?;
    assert_eq!((tag, answer), (Some(20), Arp::reply(vm.mac(), OWN, asker.mac(), OTHER)));
    assert_eq!(vm.answered(), 1, "the one without the tag is another domain's");
    Ok(())
}

#[test]
fn it_goes_with_its_handle_and_leaves_nothing() -> Result<()> {
    let runner = Runner::new()?;
    let bridge = runner.bridge("rt0", "10.8.64.1/24")?;
    let netns = runner.netns()?;
    let before = runner.inside(Snapshot::take)?;
    bridge.tap("vm1")?.remove()?;
    assert_eq!(bridge.ports()?, BTreeSet::new());
    let vm = bridge.tap("vm1")?;
    assert_eq!(runner.inside(Snapshot::take)?.since(&before).len(), 1);
    drop((runner, bridge));
    assert_ne!(netns.holders()?, Vec::<String>::new(), "a tap is a handle of the runner too");
    drop(vm);
    lab::wait_until(DEADLINE, "the runner to go", || Ok(netns.holders()?.is_empty().then_some(())))
}
