//! Leases against everything that shows an address in use, and what may be done where the two differ.
//!
//! [`observe`] reads the leases first and looks for users afterwards: what is allocated in between is then missing among
//! the leases and so cannot be mistaken for one that nobody uses. [`compare`] says what does not fit, without doing
//! anything. [`Report::of`] takes two observations, so that only what both show may be reclaimed, and [`reclaim`] looks a
//! third time, right before it acts, and changes only leases that are still the ones in the report.
//!
//! **Proof of absence** is: every network namespace on the machine was looked into and has the address on no interface
//! that leads to the lease's domain, or to nowhere that is known; nobody answers for it on the bridge; the agent, if one
//! watches the bridge, has it in its live table for nobody; and the host has heard of no such neighbour lately. If any of
//! these could not be looked at, that is a [`Gap`], and there is no proof for anything in the domain. A virtual machine
//! behind a tap and a machine behind an uplink cannot be looked into: for those the probes have to do.

mod compare;
mod look;
mod reclaim;
mod report;

use std::net::Ipv4Addr;

pub use compare::{Kind, Row, compare};
pub use look::{LookError, Looker};
pub use reclaim::{Outcome, reclaim};
pub use report::{InvalidReport, LeaseName, Report, ReportRow, User};

use crate::net::{Domain, Mac, NetnsId, Owner};

/// Everything that shows addresses in use, at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// What was seen.
    pub sightings: Vec<Sighting>,
    /// What could not be looked at.
    pub gaps: Vec<Gap>,
}

/// One thing that shows an address in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Where; `None` if it may be any domain.
    pub domain: Option<Domain>,
    /// The address.
    pub address: Ipv4Addr,
    /// By what it was seen.
    pub by: Sense,
    /// The hardware address that uses it.
    pub mac: Mac,
    /// The network namespace that it is in, if that is known.
    pub netns: Option<NetnsId>,
    /// What to call whoever uses it.
    pub name: Option<String>,
    /// Every name that a lease of it may be in.
    pub owners: Vec<Owner>,
    /// The bridge port that it is behind.
    pub port: Option<String>,
}

/// How an address was seen in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sense {
    /// It is configured on an interface.
    Configured,
    /// The agent has it in its live table.
    LiveTable,
    /// Somebody answered a probe for it.
    Answered,
    /// The host has heard from it lately.
    Neighbour,
}

/// Something that could not be looked at, and in which domain it keeps everything from being proven absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Where; `None` is everywhere.
    pub domain: Option<Domain>,
    /// What it is, and why.
    pub what: String,
}

impl Evidence {
    /// What shows `address` in use in `domain`.
    pub fn of(&self, domain: Domain, address: Ipv4Addr) -> impl Iterator<Item = &Sighting> {
        self.sightings
            .iter()
            .filter(move |seen| seen.address == address && seen.domain.is_none_or(|of| of == domain))
    }

    /// What keeps it from being said that an address of `domain` is not in use.
    pub fn gaps_in(&self, domain: Domain) -> impl Iterator<Item = &Gap> {
        self.gaps.iter().filter(move |gap| gap.domain.is_none_or(|of| of == domain))
    }

    /// Whether nothing shows `address` in use, and everything that could was looked at.
    #[must_use]
    pub fn proves_absent(&self, domain: Domain, address: Ipv4Addr) -> bool {
        self.of(domain, address).next().is_none() && self.gaps_in(domain).next().is_none()
    }
}

impl Sense {
    /// The word for it, as reports have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Configured => "configured",
            Self::LiveTable => "live_table",
            Self::Answered => "answered",
            Self::Neighbour => "neighbour",
        }
    }
}
