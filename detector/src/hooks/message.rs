//! What hooks are told. The words and fields are a contract: `packaging/hooks.md` tells what they mean.

use std::{fmt, net::Ipv4Addr, str::FromStr, time::SystemTime};

use serde::{Deserialize, Serialize};

use crate::engine::IncidentId;

/// What a message's fields are, and what they mean. Fields are only added under one name; whatever else changes gets a
/// new one.
pub const SCHEMA: &str = "dupip.hook/v1";

/// Of what a hook is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Occasion {
    /// An address has two live owners.
    Opened,
    /// A loser is at its new address.
    Evicted,
    /// Each address has one owner again.
    Resolved,
    /// An incident could not be healed.
    Failed,
    /// The loser's sandbox is to be replaced; whoever asked waits for the answer.
    Recycle,
}

impl Occasion {
    /// Every occasion, in the order in which an incident has them.
    pub const ALL: [Self; 5] = [Self::Opened, Self::Evicted, Self::Resolved, Self::Failed, Self::Recycle];

    /// The occasion in one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Evicted => "evicted",
            Self::Resolved => "resolved",
            Self::Failed => "failed",
            Self::Recycle => "recycle",
        }
    }
}

impl fmt::Display for Occasion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that is no occasion.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no occasion `{0}`; there are {occasions}", occasions = Occasion::ALL.map(Occasion::as_str).join(", "))]
pub struct UnknownOccasion(String);

impl FromStr for Occasion {
    type Err = UnknownOccasion;

    fn from_str(text: &str) -> Result<Self, UnknownOccasion> {
        let found = Self::ALL.into_iter().find(|occasion| occasion.as_str() == text);
        found.ok_or_else(|| UnknownOccasion(text.to_owned()))
    }
}

/// Which message it is: the same however often it is sent, and of no other one.
///
/// Written `INCIDENT-OCCASION-COUNT`, as in `7-evicted-1`; so it is safe in a header and in a file's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct MessageId {
    /// The incident.
    pub incident: IncidentId,
    /// What happened.
    pub occasion: Occasion,
    /// Which time it happened to this incident, from 1.
    pub count: u32,
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.incident, self.occasion, self.count)
    }
}

impl From<MessageId> for String {
    fn from(id: MessageId) -> Self {
        id.to_string()
    }
}

/// A text that is no message's id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no id of a message, which is INCIDENT-OCCASION-COUNT")]
pub struct BadMessageId;

impl TryFrom<String> for MessageId {
    type Error = BadMessageId;

    fn try_from(text: String) -> Result<Self, BadMessageId> {
        let mut parts = text.split('-');
        let mut part = || parts.next().ok_or(BadMessageId);
        let (incident, occasion, count) = (part()?, part()?, part()?);
        let id = Self {
            incident: IncidentId(incident.parse().map_err(|_| BadMessageId)?),
            occasion: occasion.parse().map_err(|_| BadMessageId)?,
            count: count.parse().map_err(|_| BadMessageId)?,
        };
        // Only the one way to write it, so that equal ids are equal texts.
        if id.to_string() == text { Ok(id) } else { Err(BadMessageId) }
    }
}

/// One of the two who had one address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartyInfo {
    /// The sandbox's name, if it is known.
    pub sandbox: Option<String>,
    /// The bridge port's interface name.
    pub port: String,
    /// The port's interface index.
    pub ifindex: u32,
    /// The hardware address, as in `02:00:00:00:00:01`.
    pub mac: String,
    /// The inode of the network namespace behind the port, if it is known.
    pub netns: Option<u64>,
}

/// What a hook is told: one JSON object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Which message it is.
    pub id: MessageId,
    /// When it happened, as RFC 3339 writes it, in UTC.
    pub time: String,
    /// The runner's name.
    pub host: String,
    /// The bridge.
    pub bridge: String,
    /// The VLAN on it; `None` is what goes untagged.
    pub vlan: Option<u16>,
    /// The contested address.
    pub address: Ipv4Addr,
    /// The address that the loser had.
    pub old_address: Option<Ipv4Addr>,
    /// The address that the loser has now.
    pub new_address: Option<Ipv4Addr>,
    /// The generation of the lease on the new address, if there is one; else of the winner's lease.
    pub generation: Option<u64>,
    /// Who keeps the contested address, if that is decided.
    pub winner: Option<PartyInfo>,
    /// Who does not.
    pub loser: Option<PartyInfo>,
    /// Why it was decided so, or why it failed.
    pub reason: Option<String>,
    /// How the incident stands, in one word.
    pub status: String,
    /// All of it in one plain sentence.
    pub message: String,
}

impl Message {
    /// What happened.
    #[must_use]
    pub const fn occasion(&self) -> Occasion {
        self.id.occasion
    }

    /// The incident.
    #[must_use]
    pub const fn incident(&self) -> IncidentId {
        self.id.incident
    }

    /// A time as messages have it.
    #[must_use]
    pub fn time(at: SystemTime) -> String {
        humantime::format_rfc3339_millis(at).to_string()
    }

    /// What is sent: JSON, with what follows from the id spelt out.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let told = Told { schema: SCHEMA, occasion: self.occasion(), incident: self.incident().0, message: self };
        // It has nothing that JSON cannot say.
        serde_json::to_vec(&told).unwrap_or_default()
    }
}

/// A message as it is sent.
#[derive(Serialize)]
struct Told<'a> {
    schema: &'static str,
    occasion: Occasion,
    incident: u64,
    #[serde(flatten)]
    message: &'a Message,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_written_in_one_way() {
        let id = MessageId { incident: IncidentId(7), occasion: Occasion::Evicted, count: 2 };
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"7-evicted-2\"");
        assert_eq!(MessageId::try_from("7-evicted-2".to_owned()), Ok(id));
        for wrong in ["", "7", "7-evicted", "7-evicted-02", "+7-evicted-2", "7-gone-2", "7-evicted-2-1", "../-opened-1"]
        {
            assert_eq!(MessageId::try_from(wrong.to_owned()), Err(BadMessageId), "{wrong}");
        }
    }

    #[test]
    fn every_occasion_is_known_by_its_own_word() {
        for occasion in Occasion::ALL {
            assert_eq!(occasion.as_str().parse(), Ok(occasion));
            assert_eq!(serde_json::to_value(occasion).unwrap(), occasion.as_str());
        }
        let error = "healed".parse::<Occasion>().unwrap_err().to_string();
        assert_eq!(error, "there is no occasion `healed`; there are opened, evicted, resolved, failed, recycle");
    }
}
