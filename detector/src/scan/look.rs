//! The look: bridges, ports, and what is configured behind them.

use super::{Gap, ScanError, ask::Asker};
use crate::{
    agent::{Seen, bridge_told},
    allocator::since_boot,
    engine::{Input, Port},
    net::BridgeName,
    netlink::{Error, Host, Outside, Survey},
};

/// Looks at `bridges`, or at every one, and tells `asker` what is there. It listens before it looks, so that what
/// changes meanwhile is heard.
pub(super) async fn at(bridges: &[BridgeName], asker: &mut Asker) -> Result<(), ScanError> {
    let mut host = Host::open()?;
    let are_named = !bridges.is_empty();
    let names = match are_named {
        true => bridges.to_vec(),
        false => host.bridges().await?.iter().map(|bridge| bridge.name).collect(),
    };
    for name in names {
        match one(&mut host, name, asker).await {
            // It went while the others were looked at.
            Err(ScanError::Netlink(Error::NoBridge(_))) if !are_named => {}
            done => done?,
        }
    }
    asker.tell(Input::InventoryDone);
    Ok(())
}

async fn one(host: &mut Host, name: BridgeName, asker: &mut Asker) -> Result<(), ScanError> {
    let Outside { bridge, ports, .. } = host.outside(name).await?;
    ports.iter().try_for_each(|port| asker.listen_at(bridge.index, port.index))?;
    let began = since_boot();
    let Survey { bridge, addresses, vlans, ports } = host.survey(name).await?;
    let hints = host.neighbours(bridge.index).await.unwrap_or_default();
    let told = bridge_told(bridge, addresses, vlans);
    asker.bridge(bridge.up, &told, hints.into_iter().map(|(address, _)| address).collect());
    asker.tell(Input::BridgeUp(told));
    for found in ports {
        let reach = found.reach;
        asker.listen_at(bridge.index, found.port.index)?;
        let Seen { port, unreachable, survey } = Seen::new(found, began);
        asker.gaps.extend(Gap::behind(name, &port.name, reach, unreachable.map(|error| error.to_string())));
        let index = port.index;
        asker.tell(Input::PortUp(Port { index, name: port.name, bridge: name, pvid: port.pvid }));
        asker.tell(Input::Surveyed { port: index, survey });
    }
    Ok(())
}
