//! Who is at the other end of the Unix socket, and whether it may change anything.

use std::{ffi::CString, fmt, io};

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use rustix::process::geteuid;
use tokio::net::UnixStream;

/// Whose members may change anything, besides root and whoever runs the agent.
pub(super) const GROUP: &str = "dupip";

/// The credentials with which the other end connected (`SO_PEERCRED`, unix(7)).
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    uid: Uid,
    gid: Gid,
    /// Absent if it is in a namespace of processes that the agent does not see into.
    pid: Option<i32>,
}

/// Who the journal will say has asked for a change.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "agent for uid {}", self.uid)?;
        self.pid.map_or(Ok(()), |pid| write!(f, ", pid {pid}"))
    }
}

impl Peer {
    pub(super) fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        let (uid, gid) = (Uid::from_raw(credentials.uid()), Gid::from_raw(credentials.gid()));
        Ok(Self { uid, gid, pid: credentials.pid() })
    }

    /// Whether the peer may change anything; if not, why and what to do. Asks the databases of users and groups, which may
    /// be slow.
    pub(super) fn admit(self) -> Result<(), String> {
        if self.uid.is_root() || self.uid.as_raw() == geteuid().as_raw() {
            return Ok(());
        }
        let user = User::from_uid(self.uid).ok().flatten();
        match group() {
            Some(group) if self.gid == group || user.as_ref().is_some_and(|user| is_member(user, group)) => Ok(()),
            found => {
                let name = user.map_or_else(|| self.uid.to_string(), |user| user.name);
                Err(refusal(&name, found.is_some()))
            }
        }
    }
}

/// The group's number, if there is such a group.
pub(super) fn group() -> Option<Gid> {
    Group::from_name(GROUP).ok().flatten().map(|group| group.gid)
}

fn is_member(user: &User, group: Gid) -> bool {
    let groups = CString::new(user.name.as_str()).ok().and_then(|name| getgrouplist(&name, user.gid).ok());
    groups.is_some_and(|groups| groups.contains(&group))
}

fn refusal(user: &str, there_is_a_group: bool) -> String {
    let make = if there_is_a_group { "" } else { "make the group with `groupadd --system dupip`, " };
    format!(
        "user {user} may change nothing here; be root, or {make}join group {GROUP} with `usermod -aG {GROUP} {user}`"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: u32, gid: u32) -> Peer {
        Peer { uid: Uid::from_raw(uid), gid: Gid::from_raw(gid), pid: None }
    }

    #[test]
    fn root_and_whoever_runs_the_agent_are_admitted() {
        assert_eq!(peer(0, 0).admit(), Ok(()));
        assert_eq!(peer(geteuid().as_raw(), 12345).admit(), Ok(()));
    }

    #[test]
    fn a_stranger_is_told_what_to_do() {
        let refusal = peer(54321, 54321).admit().unwrap_err();
        assert!(refusal.starts_with("user 54321 may change nothing here; be root, or "), "{refusal}");
        assert!(refusal.ends_with("join group dupip with `usermod -aG dupip 54321`"), "{refusal}");
    }

    #[test]
    fn membership_is_what_the_database_says() {
        let root = User::from_uid(Uid::from_raw(0)).unwrap().unwrap();
        assert!(is_member(&root, root.gid) && !is_member(&root, Gid::from_raw(54321)));
    }
}
