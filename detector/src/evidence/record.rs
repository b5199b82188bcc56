//! The whole of a record.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    time::{Duration, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::{
    parts::{Contest, Eviction, Party, Plan, Sighting, domain},
    words::Word,
};
use crate::{
    allocator::{Kept, LONGEST_RECORD},
    engine::{self, IncidentId, Status},
    net::VlanId,
    time::Timestamp,
};

/// The version of what is written here. It grows when an older dupip would misunderstand.
pub const SCHEMA: u32 = 1;

/// How many parties and addresses are left, at first, of a record that is too long.
const MOST: usize = 1024;

/// An incident as it is written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    schema: u32,
    /// The boot that its times count from.
    pub boot: String,
    /// What the wall clock showed when that boot began, as it was set when the record was written: nanoseconds since 1970.
    pub wall_offset: u64,
    /// The incident's number.
    pub id: u64,
    bridge: String,
    vlan: Option<u16>,
    address: Ipv4Addr,
    #[serde(default)]
    addresses: Vec<Ipv4Addr>,
    status: String,
    first_evidence: String,
    first_at_ns: u64,
    named_at_ns: u64,
    closed_at_ns: Option<u64>,
    #[serde(default = "once")]
    times: u32,
    #[serde(default)]
    claims: u64,
    #[serde(default)]
    told_claims: u64,
    #[serde(default)]
    told_losers: u32,
    parties: Vec<Party>,
    contest: Option<Contest>,
    held: Option<String>,
    #[serde(default)]
    attempts: u8,
    #[serde(default)]
    plan: Vec<Plan>,
    #[serde(default)]
    evictions: Vec<Eviction>,
    #[serde(default)]
    sightings: Vec<Sighting>,
    /// How many parties and addresses it would have besides, were it not too long then.
    #[serde(default)]
    pub left_out: usize,
}

/// All that a record must have to be asked which it is.
#[derive(Deserialize)]
struct Version {
    schema: u32,
}

const fn once() -> u32 {
    1
}

/// Why a record cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It is no record at all, or lacks what every record has.
    #[error("this is no record of an incident: {0}")]
    NotARecord(#[from] serde_json::Error),
    /// It was written by a dupip that knows more than this one.
    #[error("the record has version {found}, and this dupip knows versions up to {SCHEMA}: use the newer dupip")]
    Newer {
        /// Its version.
        found: u32,
    },
    /// It says something that cannot be.
    #[error("the record has `{text}` for {} {what}", article(.what))]
    Impossible {
        /// What should stand there.
        what: &'static str,
        /// What does.
        text: String,
    },
}

fn article(noun: &str) -> &'static str {
    if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" }
}

impl Unreadable {
    pub(super) fn no(what: &'static str, text: impl ToString) -> Self {
        Self::Impossible { what, text: text.to_string() }
    }
}

impl Record {
    /// All that is known of `incident`, whose times count from `boot`, which began when the wall clock showed `wall_offset`
    /// (nanoseconds since 1970).
    #[must_use]
    pub fn of(incident: &engine::Incident, boot: &str, wall_offset: u64) -> Self {
        let engine::Incident {
            id,
            domain,
            address,
            addresses,
            parties,
            first_evidence,
            first_at,
            named_at,
            contest,
            held,
            plan,
            evictions,
            status,
            closed_at,
            times,
            claims,
            sightings,
            told_losers,
            told_claims,
            attempts,
        } = incident;
        Self {
            schema: SCHEMA,
            boot: boot.to_owned(),
            wall_offset,
            id: id.0,
            bridge: domain.bridge.to_string(),
            vlan: domain.vlan.map(VlanId::get),
            address: *address,
            addresses: addresses.iter().copied().collect(),
            status: status.word().to_owned(),
            first_evidence: first_evidence.word().to_owned(),
            first_at_ns: first_at.as_nanos(),
            named_at_ns: named_at.as_nanos(),
            closed_at_ns: closed_at.map(Timestamp::as_nanos),
            times: *times,
            claims: *claims,
            told_claims: *told_claims,
            told_losers: *told_losers,
            parties: parties.iter().map(Into::into).collect(),
            contest: contest.as_ref().map(Into::into),
            held: held.map(|held| held.word().to_owned()),
            attempts: *attempts,
            plan: plan.iter().map(Into::into).collect(),
            evictions: evictions.iter().map(Into::into).collect(),
            sightings: sightings.iter().map(Into::into).collect(),
            left_out: 0,
        }
    }

    /// The incident, as the engine has it.
    ///
    /// # Errors
    /// When the record says something that cannot be.
    pub fn incident(&self) -> Result<engine::Incident, Unreadable> {
        Ok(engine::Incident {
            id: IncidentId(self.id),
            domain: domain(&self.bridge, self.vlan)?,
            address: self.address,
            addresses: self.addresses.iter().copied().chain([self.address]).collect(),
            parties: self.parties.iter().map(Party::restored).collect::<Result<_, _>>()?,
            first_evidence: Word::read(&self.first_evidence)?,
            first_at: Timestamp::from_nanos(self.first_at_ns),
            named_at: Timestamp::from_nanos(self.named_at_ns),
            contest: self.contest.as_ref().map(Contest::restored).transpose()?,
            held: self.held.as_deref().map(Word::read).transpose()?,
            plan: self.plan.iter().map(Plan::restored).collect::<Result<_, _>>()?,
            evictions: self.evictions.iter().map(Eviction::restored).collect::<Result<_, _>>()?,
            status: Word::read(&self.status)?,
            closed_at: self.closed_at_ns.map(Timestamp::from_nanos),
            times: self.times,
            claims: self.claims,
            sightings: self.sightings.iter().map(Sighting::restored).collect::<Result<_, _>>()?,
            told_losers: self.told_losers,
            told_claims: self.told_claims,
            attempts: self.attempts,
        })
    }

    /// The record as JSON, on one line.
    #[must_use]
    pub fn to_json(&self) -> String {
        // It cannot fail: all keys are texts. If it did, what is written would be refused by whoever reads it.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// A record from JSON.
    ///
    /// # Errors
    /// When it is no record, or one of a newer dupip.
    pub fn from_json(text: &str) -> Result<Self, Unreadable> {
        match serde_json::from_str(text)? {
            Version { schema: SCHEMA } => Ok(serde_json::from_str(text)?),
            Version { schema: 0 } => Err(Unreadable::no("version", 0)),
            Version { schema: found } => Err(Unreadable::Newer { found }),
        }
    }

    /// The record as JSON of at most so many bytes, if leaving out parties that neither win nor are moved, and addresses,
    /// is enough for that: whoever claims with many hardware addresses must not keep others from being healed.
    fn fitting(mut self, bytes: usize) -> String {
        let mut most = MOST;
        loop {
            let text = self.to_json();
            if text.len() <= bytes || most == 0 {
                return text;
            }
            self.cut_to(most);
            most /= 2;
        }
    }

    fn cut_to(&mut self, most: usize) {
        let whole = self.parties.len() + self.addresses.len();
        let winner = self.contest.as_ref().and_then(|contest| contest.winner);
        let needed: BTreeSet<u32> = self.evictions.iter().map(|eviction| eviction.ifindex).chain(winner).collect();
        let mut others = 0..most;
        self.parties.retain(|party| needed.contains(&party.ifindex) || others.next().is_some());
        self.addresses.truncate(most);
        self.left_out += whole - self.parties.len() - self.addresses.len();
    }
}

/// `incident` as the store keeps it; the times as for [`Record::of`].
#[must_use]
pub fn kept(incident: &engine::Incident, boot: &str, wall_offset: u64) -> Kept {
    let since_1970 =
        Duration::from_nanos(wall_offset).saturating_add(Duration::from_nanos(incident.first_at.as_nanos()));
    Kept {
        number: incident.id.0,
        boot: boot.to_owned(),
        domain: incident.domain,
        address: incident.address,
        is_open: incident.status == Status::Open,
        opened: UNIX_EPOCH.checked_add(since_1970).unwrap_or(UNIX_EPOCH),
        record: Record::of(incident, boot, wall_offset).fitting(LONGEST_RECORD),
    }
}
