//! Who may look at the traffic.

use anyhow::{Result, bail};
use lab::{Agent, Bridge, Dupip, Mode, Process};

use crate::bench::{
    Programs,
    peers::{Peer, Running},
};

/// One way to look, each measured in every round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Observer {
    /// Nothing is attached and nobody listens.
    Nobody,
    /// An empty TCX program at every port.
    Empty,
    /// The agent as it is shipped.
    Dupip,
    /// A peer, where it hears what it can.
    Peer(Peer),
}

/// It looks for as long as this lives.
pub(super) enum Looking {
    Nobody,
    Empty(Process),
    Dupip(Agent),
    Peer(Running),
}

impl Observer {
    /// All of them, in the order of the table.
    pub(super) const ALL: [Self; 7] = [
        Self::Nobody,
        Self::Empty,
        Self::Dupip,
        Self::Peer(Peer::Arpwatch),
        Self::Peer(Peer::Tcpdump),
        Self::Peer(Peer::Tshark),
        Self::Peer(Peer::Arpalert),
    ];

    pub(super) fn title(self) -> String {
        match self {
            Self::Nobody => "nothing attached".to_owned(),
            Self::Empty => "empty TCX program on every port".to_owned(),
            Self::Dupip => "dupip".to_owned(),
            Self::Peer(Peer::Arpalert) => "arpalert on all ports".to_owned(),
            Self::Peer(Peer::Tcpdump) => "tcpdump arp on the bridge".to_owned(),
            Self::Peer(peer) => format!("{} on the bridge", peer.name()),
        }
    }

    /// Begins to look, and returns when it does.
    ///
    /// # Errors
    /// When the program does not start.
    pub(super) fn look(self, bridge: &Bridge, ports: &[&str], programs: &Programs) -> Result<Looking> {
        Ok(match self {
            Self::Nobody => Looking::Nobody,
            Self::Empty => {
                let attach = bridge.runner().command(&programs.yardsticks).args(["attach", "empty"]).args(ports);
                let mut attached = attach.spawn()?;
                attached.wait_for_line("ready", super::PATIENCE)?;
                Looking::Empty(attached)
            }
            Self::Dupip => Looking::Dupip(Dupip::at(bridge, &programs.dupip)?.logging("info").start(Mode::Observe)?),
            Self::Peer(Peer::Arpalert) => Looking::Peer(Peer::Arpalert.start_on(bridge, ports)?),
            Self::Peer(peer) => Looking::Peer(peer.start(bridge)?),
        })
    }
}

impl Looking {
    /// Looks no longer. All that was attached is gone then.
    ///
    /// # Errors
    /// When the program does not end, or ends badly.
    pub(super) fn end(self) -> Result<()> {
        match self {
            Self::Nobody => Ok(()),
            Self::Empty(attached) => attached.kill(),
            Self::Dupip(agent) => match agent.terminate()? {
                status if status.success() => Ok(()),
                status => bail!("the agent ended with {status}"),
            },
            Self::Peer(running) => running.stop().map(drop),
        }
    }
}
