//! What is found, as messages to hooks.

use std::{net::Ipv4Addr, sync::LazyLock, time::SystemTime};

use crate::{
    engine::{Eviction, Finding, Incident, Party},
    hooks::{Message, MessageId, Occasion, PartyInfo},
    net::{IfIndex, VlanId},
};

/// The runner's name, as its kernel has it.
static HOST: LazyLock<String> = LazyLock::new(|| rustix::system::uname().nodename().to_string_lossy().into_owned());

/// What hooks are to hear of a finding, if anything.
pub(super) fn message(finding: &Finding) -> Option<Message> {
    Some(match finding {
        Finding::Duplicate(incident) | Finding::Reopened(incident) => opened(incident),
        Finding::Evicted { incident, port } => of_loser(incident, *port, Occasion::Evicted),
        Finding::GivenUp { incident, port } => of_loser(incident, *port, Occasion::Failed),
        Finding::Healed(incident) | Finding::Gone(incident) => resolved(incident),
        _ => return None,
    })
}

/// That the orchestrator is to replace the sandbox behind a port.
pub(super) fn recycle(incident: &Incident, port: IfIndex) -> Message {
    of_loser(incident, port, Occasion::Recycle)
}

fn opened(incident: &Incident) -> Message {
    let parties: Vec<String> = incident.contenders().map(Party::label).collect();
    let message = format!("{} all use {} on {}", parties.join(" and "), incident.address, incident.domain);
    of(incident, Occasion::Opened, incident.times, message)
}

fn resolved(incident: &Incident) -> Message {
    let message = match incident.moved() {
        0 => format!("{} has one owner again: the duplicate ended without dupip", incident.address),
        _ => format!("{} has one owner again: every loser is at an address of its own", incident.address),
    };
    let message = of(incident, Occasion::Resolved, incident.times, message);
    match incident.evictions.iter().next() {
        Some((port, eviction)) if incident.evictions.len() == 1 => about(message, incident, *port, Some(eviction)),
        _ => message,
    }
}

fn of_loser(incident: &Incident, port: IfIndex, occasion: Occasion) -> Message {
    let eviction = incident.evictions.get(&port);
    let loser = incident.party(port).map_or_else(|| format!("port {port}"), Party::label);
    let new = eviction.and_then(|eviction| eviction.lease.as_ref()).map(|lease| lease.address);
    let (old, failure) = (incident.address, eviction.and_then(|eviction| eviction.failure.clone()));
    let message = match (occasion, new) {
        (Occasion::Evicted, Some(new)) => format!("{loser} was moved from {old} to {new}"),
        (Occasion::Recycle, _) => format!("{loser} has lost {old} and is to be replaced"),
        _ => format!("{loser} could not be moved away from {old}: {}", failure.clone().unwrap_or_default()),
    };
    let message = of(incident, occasion, incident.told_losers, message);
    about(Message { reason: failure.or(message.reason.clone()), ..message }, incident, port, eviction)
}

/// With the loser's old address and new one.
fn about(message: Message, incident: &Incident, port: IfIndex, eviction: Option<&Eviction>) -> Message {
    let lease = eviction.and_then(|eviction| eviction.lease.as_ref());
    Message {
        old_address: Some(incident.address),
        new_address: lease.map(|lease| lease.address),
        generation: lease.map(|lease| lease.generation.0).or(message.generation),
        loser: incident.party(port).map(party),
        ..message
    }
}

fn of(incident: &Incident, occasion: Occasion, count: u32, message: String) -> Message {
    let none: Option<Ipv4Addr> = None;
    Message {
        id: MessageId { incident: incident.id, occasion, count },
        time: Message::time(SystemTime::now()),
        host: HOST.clone(),
        bridge: incident.domain.bridge.to_string(),
        vlan: incident.domain.vlan.map(VlanId::get),
        address: incident.address,
        old_address: none,
        new_address: none,
        generation: None,
        winner: incident.winner().map(party),
        loser: None,
        reason: incident.decision(),
        status: incident.status.as_str().to_owned(),
        message,
    }
}

fn party(party: &Party) -> PartyInfo {
    PartyInfo {
        sandbox: party.sandbox.name.clone(),
        port: party.port_name.clone(),
        ifindex: party.station.port.get(),
        mac: party.station.mac.to_string(),
        netns: party.sandbox.netns.map(|netns| netns.inode),
    }
}
