//! A real TCP service in the middle of an incident: the winner's connections, and the loser's.

use std::{
    io::{ErrorKind, Read as _},
    thread,
};

use anyhow::{Context as _, Result};
use lab::{Again, Agent, Bridge, Conversation, Echo, MacAddr, Mode, Plan, Sandbox, wait_until};

use super::{
    CONTESTED, DEADLINE, cached_by, cached_by_host, closed, forwarded_by, role, runner, text, wait_row, wait_told,
};

const SERVICE: u16 = 7000;
/// How much is said before, and after.
const ENOUGH: u64 = 50;

/// A winner with a service, whom a third sandbox and the host talk to, and an agent that knows them.
struct Lab {
    agent: Agent,
    winner: Sandbox,
    third: Sandbox,
    echo: Echo,
    bridge: Bridge,
}

impl Lab {
    fn new() -> Result<Self> {
        let (bridge, dupip) = runner()?;
        dupip.allocate("winner")?;
        let winner = bridge.sandbox("winner").without_ipv6().address("10.8.64.2/24").start()?;
        let third = bridge.sandbox("third").without_ipv6().address("10.8.64.9/24").start()?;
        let mut agent = dupip.start(Mode::Enforce)?;
        wait_row(&mut agent, CONTESTED, winner.port())?;
        let echo = winner.echo(SERVICE)?;
        Ok(Self { agent, winner, third, echo, bridge })
    }

    /// One that brings its link up before it has an address, so that its kernel says nothing of it.
    fn newcomer(&self) -> Plan {
        self.bridge.sandbox("newcomer").without_ipv6().address("10.8.64.2/24")
    }

    fn converse(&self) -> Result<[Conversation; 2]> {
        Ok([self.third.converse(CONTESTED, SERVICE)?, self.bridge.runner().converse(CONTESTED, SERVICE)?])
    }

    fn done_again(&self) -> Result<[Again; 3]> {
        Ok([self.winner.done_again()?, self.third.done_again()?, self.bridge.runner().done_again()?])
    }

    /// That the host, the bridge and the third sandbox know by which port and which hardware address somebody is reached,
    /// and reach it.
    fn assert_reached(&self, sandbox: &Sandbox, echo: &Echo) -> Result<()> {
        let address = sandbox.addresses()?.first().and_then(|address| address.split('/').next()?.parse().ok());
        let (address, mac) = (address.context("no address")?, sandbox.mac()?);
        let before = echo.peers().len();
        let talks = [self.third.converse(address, SERVICE)?, self.bridge.runner().converse(address, SERVICE)?];
        talks.iter().try_for_each(|talk| talk.wait_for(5, DEADLINE))?;
        assert_eq!(echo.peers().len(), before + 2, "{} itself has answered", sandbox.name());
        assert_eq!(sandbox.ping(self.bridge.gateway(), 3)?.lost(), 0, "{} reaches the gateway", sandbox.name());
        assert_eq!(self.bridge.owners(address)?, [mac].into());
        let known = [cached_by_host(&self.bridge, address)?, cached_by(&self.third, address)?];
        assert_eq!(known, [mac.to_string(), mac.to_string()], "{}", sandbox.name());
        assert_eq!(forwarded_by(&self.bridge, mac)?, sandbox.port());
        Ok(())
    }
}

fn wait_for(talks: &[Conversation]) -> Result<()> {
    talks.iter().try_for_each(|talk| talk.wait_for(ENOUGH, DEADLINE))
}

#[test]
fn the_winners_connections_carry_data_all_the_while() -> Result<()> {
    let mut lab = Lab::new()?;
    let was = (lab.winner.addresses()?, lab.winner.routes()?, lab.winner.mac()?);
    let talks = lab.converse()?;
    wait_for(&talks)?;
    let before = lab.done_again()?;
    let newcomer = lab.newcomer().start()?;
    let incident = closed(&mut lab.agent, "healed")?;
    wait_for(&talks)?;
    assert_eq!(lab.done_again()?, before, "nothing had to be said twice");
    assert_eq!(
        (role(&incident, lab.winner.port())?, role(&incident, newcomer.port())?),
        ("winner".into(), "loser".into())
    );
    assert_eq!((lab.winner.addresses()?, lab.winner.routes()?, lab.winner.mac()?), was);
    assert_eq!(newcomer.addresses()?, ["10.8.64.3/24"]);
    assert_eq!(lab.echo.peers().len(), 2, "nobody had to connect anew");
    let echo = newcomer.echo(SERVICE)?;
    lab.assert_reached(&lab.winner, &lab.echo)?;
    lab.assert_reached(&newcomer, &echo)
}

/// Its announcement gets to everybody before anybody can know that it is one too many, and whatever is sent to the winner
/// in that moment goes astray. So it is one in which nothing is.
#[test]
fn a_newcomer_that_announces_itself_spoils_no_connection_for_longer_than_a_moment() -> Result<()> {
    let mut lab = Lab::new()?;
    let talks = lab.converse()?;
    wait_for(&talks)?;
    let before = lab.done_again()?;
    talks.iter().for_each(Conversation::rest);
    let newcomer = lab.newcomer().announced().start()?;
    wait_told(&mut lab.agent, "the newcomer to be contained", |event| text(event, "kind") == "contained")?;
    let mac = lab.winner.mac()?.to_string();
    wait_until(DEADLINE, "everybody to know the winner again", || {
        let known = [cached_by_host(&lab.bridge, CONTESTED)?, cached_by(&lab.third, CONTESTED)?];
        Ok((known == [mac.clone(), mac.clone()]).then_some(()))
    })?;
    talks.iter().for_each(Conversation::go_on);
    closed(&mut lab.agent, "healed")?;
    wait_for(&talks)?;
    assert_eq!(lab.done_again()?, before, "nothing had to be said twice");
    let echo = newcomer.echo(SERVICE)?;
    lab.assert_reached(&lab.winner, &lab.echo)?;
    lab.assert_reached(&newcomer, &echo)
}

/// As a virtual machine that was copied with all that it had. Two with one hardware address cannot both be reached, since
/// a bridge has one port for it.
#[test]
fn a_twin_with_the_winners_hardware_address_resets_nothing() -> Result<()> {
    let mut lab = Lab::new()?;
    let talks = lab.converse()?;
    wait_for(&talks)?;
    let mac: MacAddr = lab.winner.mac()?;
    let twin = lab.newcomer().mac(mac).start()?;
    let incident = closed(&mut lab.agent, "healed")?;
    assert_eq!((role(&incident, lab.winner.port())?, role(&incident, twin.port())?), ("winner".into(), "loser".into()));
    wait_for(&talks)?;
    assert_eq!(forwarded_by(&lab.bridge, mac)?, lab.winner.port());
    assert_eq!(talks.map(|talk| talk.trouble()), [None, None]);
    assert_eq!(
        (lab.winner.addresses()?, twin.addresses()?),
        (vec!["10.8.64.2/24".to_owned()], vec!["10.8.64.3/24".to_owned()])
    );
    Ok(())
}

#[test]
fn the_losers_client_is_told_at_once_and_comes_back_from_its_new_address() -> Result<()> {
    let (bridge, dupip) = runner()?;
    let third = bridge.sandbox("third").without_ipv6().address("10.8.64.9/24").start()?;
    let echo = third.echo(SERVICE)?;
    let orphan = bridge.sandbox("orphan").without_ipv6().address("10.8.64.2/24").start()?;
    let service = [10, 8, 64, 9].into();
    let mut client = orphan.connect(service, SERVICE)?;
    let talk = orphan.converse(service, SERVICE)?;
    talk.wait_for(ENOUGH, DEADLINE)?;
    dupip.allocate("holder")?;
    let holder = bridge.sandbox("holder").without_ipv6().address("10.8.64.2/24").start()?;
    // It waits for an answer that it has not asked for: no timer of TCP's would ever end that.
    client.set_read_timeout(None)?;
    let waits = thread::spawn(move || client.read(&mut [0]).map_err(|error| error.kind()));
    let mut agent = dupip.start(Mode::Enforce)?;
    let incident = closed(&mut agent, "healed")?;
    assert_eq!((role(&incident, holder.port())?, role(&incident, orphan.port())?), ("winner".into(), "loser".into()));
    let read = waits.join().ok().context("the client panicked")?;
    assert_eq!(read, Err(ErrorKind::ConnectionAborted), "told by its own kernel");
    assert!(talk.wait_for(u64::MAX / 2, DEADLINE).is_err());
    assert_eq!(talk.trouble(), Some(ErrorKind::ConnectionAborted));
    let again = orphan.converse(service, SERVICE)?;
    again.wait_for(ENOUGH, DEADLINE)?;
    let peers: Vec<_> = echo.peers().iter().map(|peer| peer.ip().to_string()).collect();
    assert_eq!(peers, ["10.8.64.2", "10.8.64.2", "10.8.64.3"]);
    assert_eq!(orphan.addresses()?, ["10.8.64.3/24"]);
    let lab = Lab { agent, winner: holder, third, echo: orphan.echo(SERVICE)?, bridge };
    let of_holder = lab.winner.echo(SERVICE)?;
    lab.assert_reached(&lab.winner, &of_holder)?;
    lab.assert_reached(&orphan, &lab.echo)
}
