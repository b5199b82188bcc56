//! A bridge full of ports, each of which claims a lot, and whoever asks for all of it.

use std::net::Ipv4Addr;

use anyhow::Result;
use lab::{Arp, MacAddr, Mode};

use super::{MOST, own_memory, wait_for_metric, with_address};

const PORTS: u8 = 128;
const CLAIMS: u32 = 512;

/// What one port announces: to the bridge alone, so that it need not be copied to every other port.
fn claims(bridge: MacAddr, port: u8) -> impl Iterator<Item = Vec<u8>> + Send {
    let mac = MacAddr(2, 0, 0, 0, 1, port);
    let first = u32::from(Ipv4Addr::new(10, 128, 0, 0)) + u32::from(port) * CLAIMS;
    let claim = move |address: u32| Arp { destination: bridge, ..Arp::announcement(mac, address.into()) }.frame();
    (first..first + CLAIMS).map(claim)
}

#[test]
fn sixty_five_thousand_claims_fit_and_can_be_asked_for() -> Result<()> {
    let (bridge, dupip) = with_address("10.0.0.1/8")?;
    let ports = bridge.start_all((0..PORTS).map(|n| bridge.sandbox(&format!("port{n}")).without_ipv6()))?;
    let mut agent = dupip.start(Mode::Observe)?;
    let mac = bridge.mac()?;
    for (n, port) in (0..PORTS).zip(&ports) {
        assert_eq!(port.flood(claims(mac, n))?, CLAIMS as usize);
    }
    let all = u32::from(PORTS) * CLAIMS;
    wait_for_metric(&mut agent, "dupip_bindings{bridge=\"rt0\"}", |bindings| bindings >= f64::from(all))?;
    assert!(own_memory(agent.pid())? < MOST, "{} KiB", own_memory(agent.pid())?);
    for _ in 0..3 {
        assert!(agent.table()?.len() >= all as usize);
    }
    assert!(own_memory(agent.pid())? < MOST, "{} KiB after the table was asked for", own_memory(agent.pid())?);
    Ok(())
}
