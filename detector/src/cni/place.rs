//! Where a network's leases are kept: the domain, the database, and the agent that may watch it.

use std::path::{Path, PathBuf};

use super::{
    call::is_identifier,
    conf::{Ipam, NetConf},
    failure::Failure,
};
use crate::{
    allocator::{Clock, DATABASE, SqliteStore},
    http::SOCKET,
    net::{BridgeName, Domain, VlanId},
};

/// Who the journal says it was.
const ACTOR: &str = "cni";
/// The bridge that the reference plugin `bridge` makes if it is told of none.
const REFERENCE_BRIDGE: &str = "cni0";

/// Where a network's leases are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) domain: Domain,
    pub(super) database: PathBuf,
    pub(super) socket: PathBuf,
}

impl Place {
    pub(super) fn of(conf: &NetConf) -> Result<Self, Failure> {
        let name = conf.name.as_deref().unwrap_or_default();
        if !is_identifier(name) {
            return Err(Failure::config(format_args!("`{name}` cannot be a network's name"))
                .hint("give the configuration a `name` of letters, digits, `_`, `.` and `-`"));
        }
        let ipam = ipam(conf)?;
        Ok(Self {
            domain: Domain { bridge: bridge(conf, ipam)?, vlan: vlan(conf, ipam)? },
            database: path("database", ipam.database.as_deref(), DATABASE)?,
            socket: path("socket", ipam.socket.as_deref(), SOCKET)?,
        })
    }

    /// Opens the book, and makes it if there is none.
    pub(super) fn open(&self) -> Result<SqliteStore, Failure> {
        let clock = Clock::system()
            .map_err(|error| Failure::from(error).about("it cannot be read which boot this is, is /proc mounted"))?;
        Ok(SqliteStore::open_quick(&self.database, ACTOR, clock)?)
    }

    /// Opens the book if there is one: where nothing was ever written, nothing is held.
    pub(super) fn open_if_there(&self) -> Result<Option<SqliteStore>, Failure> {
        let is_there = self.database.try_exists();
        match is_there.map_err(|error| Failure::from(error).about(self.database.display()))? {
            true => self.open().map(Some),
            false => Ok(None),
        }
    }
}

pub(super) fn ipam(conf: &NetConf) -> Result<&Ipam, Failure> {
    conf.ipam.as_ref().ok_or_else(|| {
        Failure::config("the network configuration has no `ipam`").hint(r#"add "ipam": {"type": "dupip-ipam", …}"#)
    })
}

/// The bridge that the container is behind, by whichever field names it.
fn bridge(conf: &NetConf, ipam: &Ipam) -> Result<BridgeName, Failure> {
    let reference = (conf.plugin.as_deref() == Some("bridge")).then_some(REFERENCE_BRIDGE);
    let names = [&ipam.bridge, &conf.bridge, &conf.master].into_iter().map(Option::as_deref).chain([reference]);
    let name = names.flatten().find(|name| !name.is_empty()).ok_or_else(|| {
        Failure::config("it is not said which bridge the addresses are for")
            .hint(r#"add "bridge": "NAME" to `ipam`: leases are kept for each bridge"#)
    })?;
    name.parse().map_err(|error| Failure::config(error).about("bridge"))
}

/// 0 is how the reference plugins write that there is none.
fn vlan(conf: &NetConf, ipam: &Ipam) -> Result<Option<VlanId>, Failure> {
    match ipam.vlan.or(conf.vlan).filter(|id| *id != 0) {
        None => Ok(None),
        Some(id) => match VlanId::new(id) {
            None => Err(Failure::config(format_args!("vlan {id}: VLANs go from 1 to 4094"))),
            vlan => Ok(vlan),
        },
    }
}

fn path(field: &str, text: Option<&str>, default: &str) -> Result<PathBuf, Failure> {
    let path = Path::new(text.filter(|text| !text.is_empty()).unwrap_or(default));
    match path.is_absolute() {
        true => Ok(path.to_owned()),
        false => Err(Failure::config(format_args!("{field} `{}` must begin with /", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::failure::Code;

    fn place(text: &str) -> Result<Place, Failure> {
        Place::of(&NetConf::of(text).unwrap())
    }

    #[test]
    fn the_bridge_and_the_vlan_are_those_that_the_configuration_names() {
        for (text, domain) in [
            (r#"{"name":"n","type":"bridge","bridge":"rt0","ipam":{}}"#, "rt0"),
            (r#"{"name":"n","type":"bridge","ipam":{}}"#, "cni0"),
            (r#"{"name":"n","type":"bridge","bridge":"rt0","vlan":7,"ipam":{}}"#, "rt0.7"),
            (r#"{"name":"n","type":"bridge","bridge":"rt0","vlan":0,"ipam":{}}"#, "rt0"),
            (r#"{"name":"n","type":"bridge","bridge":"rt0","vlan":7,"ipam":{"bridge":"br1","vlan":8}}"#, "br1.8"),
            (r#"{"name":"n","type":"bridge","bridge":"rt0","vlan":7,"ipam":{"vlan":0}}"#, "rt0"),
            (r#"{"name":"n","type":"macvlan","master":"eth1","ipam":{}}"#, "eth1"),
        ] {
            assert_eq!(place(text).unwrap().domain.to_string(), domain, "{text}");
        }
    }

    #[test]
    fn files_are_where_the_agent_has_them_unless_it_is_said() {
        let usual = place(r#"{"name":"n","bridge":"rt0","ipam":{"database":""}}"#).unwrap();
        assert_eq!((usual.database, usual.socket), (DATABASE.into(), SOCKET.into()));
        let own = place(r#"{"name":"n","bridge":"rt0","ipam":{"database":"/a/b.db","socket":"/c"}}"#).unwrap();
        assert_eq!((own.database, own.socket), ("/a/b.db".into(), "/c".into()));
    }

    #[test]
    fn what_cannot_be_is_told_with_what_to_do() {
        for (text, what) in [
            (r#"{"ipam":{}}"#, "`` cannot be a network's name"),
            (r#"{"name":"-","ipam":{}}"#, "`-` cannot be a network's name"),
            (r#"{"name":"n"}"#, "the network configuration has no `ipam`"),
            (r#"{"name":"n","type":"ptp","ipam":{}}"#, "it is not said which bridge the addresses are for"),
            (r#"{"name":"n","bridge":"rt0","ipam":{"vlan":4095}}"#, "vlan 4095: VLANs go from 1 to 4094"),
            (r#"{"name":"n","bridge":"rt0","ipam":{"database":"a.db"}}"#, "database `a.db` must begin with /"),
            (
                r#"{"name":"n","bridge":"a/b","ipam":{}}"#,
                "bridge: `a/b` cannot be an interface's name: 1 to 15 bytes, no `/`, `:` or white space",
            ),
        ] {
            let failure = place(text).unwrap_err();
            assert_eq!((failure.code, failure.what.as_str()), (Code::InvalidConfig, what), "{text}");
        }
    }
}
