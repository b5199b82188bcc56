//! Who and where: bridges, domains, ports, namespaces.

use std::{fmt, num::NonZeroU32, str::FromStr};

use super::Mac;

/// A network interface's index, unique in its network namespace at one time (`include/net/if.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfIndex(NonZeroU32);

impl IfIndex {
    /// The lowest index that there is: the loopback device's, in every namespace (`LOOPBACK_IFINDEX` in
    /// `include/net/flow.h`).
    pub const LOWEST: Self = Self(NonZeroU32::MIN);

    /// The interface with this index; the kernel uses 0 for "none".
    #[must_use]
    pub const fn new(index: u32) -> Option<Self> {
        match NonZeroU32::new(index) {
            Some(index) => Some(Self(index)),
            None => None,
        }
    }

    /// The index as the kernel writes it.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for IfIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An interface's name: 1 to 15 bytes, as `dev_valid_name` in the kernel's `net/core/dev.c` has it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Name {
    bytes: [u8; 15],
    len: u8,
}

/// A bridge's interface name, on the runner.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BridgeName(Name);

/// An interface's name inside a sandbox, such as `eth0`: a sandbox may have several, each with a lease of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfName(Name);

/// A text that no network interface can be called by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidName(String);

impl Name {
    fn as_str(&self) -> &str {
        let name = self.bytes.get(..usize::from(self.len)).unwrap_or_default();
        str::from_utf8(name).unwrap_or_default()
    }
}

impl BridgeName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl IfName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl FromStr for Name {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let forbidden = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        let mut bytes = [0; 15];
        match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(room), Ok(len)) if len > 0 && text != "." && text != ".." && !text.contains(forbidden) => {
                room.copy_from_slice(text.as_bytes());
                Ok(Self { bytes, len })
            }
            _ => Err(InvalidName(text.to_owned())),
        }
    }
}

impl FromStr for BridgeName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        text.parse().map(Self)
    }
}

impl FromStr for IfName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        text.parse().map(Self)
    }
}

impl fmt::Display for BridgeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for BridgeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BridgeName({self})")
    }
}

impl fmt::Debug for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IfName({self})")
    }
}

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` cannot be an interface's name: 1 to 15 bytes, no `/`, `:` or white space", self.0)
    }
}

impl std::error::Error for InvalidName {}

/// An 802.1Q VLAN id, 1 to 4094.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VlanId(u16);

impl VlanId {
    /// The VLAN with this id; 0 is a priority tag and 4095 is reserved (IEEE 802.1Q, table 9-2), so neither is a VLAN.
    #[must_use]
    pub const fn new(id: u16) -> Option<Self> {
        match id {
            1..=4094 => Some(Self(id)),
            _ => None,
        }
    }

    /// The id in host byte order.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// A layer 2 domain: one bridge, one VLAN. Within it an address has one owner; equal addresses in two domains are legal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Domain {
    /// The bridge.
    pub bridge: BridgeName,
    /// The VLAN on it; `None` is what goes untagged.
    pub vlan: Option<VlanId>,
}

impl Domain {
    /// The untagged domain of `bridge`.
    #[must_use]
    pub const fn untagged(bridge: BridgeName) -> Self {
        Self { bridge, vlan: None }
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.vlan {
            Some(vlan) => write!(f, "{}.{}", self.bridge, vlan.get()),
            None => self.bridge.fmt(f),
        }
    }
}

/// A network namespace: device and inode of its file under `/proc/PID/ns/net`, unique while the namespace lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetnsId {
    /// The device number of nsfs.
    pub device: u64,
    /// The inode, as in `net:[4026531840]`.
    pub inode: u64,
}

impl fmt::Display for NetnsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "net:[{}]", self.inode)
    }
}

/// How far one can see behind a bridge port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reach {
    /// There is a network namespace, and it was entered.
    Netns,
    /// There is a network namespace that cannot be entered; the kernel told by its id what is in there.
    NetnsById,
    /// A tap: a virtual machine, whose inside no kernel but its own knows.
    Tap,
    /// The other end is in the host's own namespace.
    Local,
    /// Another kind of port, a network card or a tunnel: the way to others, perhaps.
    Other,
    /// There is a network namespace with neither a name nor a process, and the kernel does not tell.
    ClosedNoWayIn,
    /// There is a network namespace, and we are not permitted to look into it.
    ClosedNotPermitted,
    /// There is a network namespace, and to look into it failed.
    Closed,
}

impl Reach {
    /// The reach in one word, as JSON spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Netns => "netns",
            Self::NetnsById => "netns_by_id",
            Self::Tap => "tap",
            Self::Local => "local",
            Self::Other => "other",
            Self::ClosedNoWayIn => "closed_no_way_in",
            Self::ClosedNotPermitted => "closed_not_permitted",
            Self::Closed => "closed",
        }
    }

    /// Whether there is a namespace that should have been seen and was not.
    #[must_use]
    pub const fn is_closed(self) -> bool {
        matches!(self, Self::ClosedNoWayIn | Self::ClosedNotPermitted | Self::Closed)
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Who claims within a domain: the port that the frames came in by, and the hardware address behind it.
///
/// The port is the identity; a sandbox can forge any MAC but not the port. The host's own station has the bridge device
/// for its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Station {
    /// The bridge port, or the bridge device for the host itself.
    pub port: IfIndex,
    /// The hardware address that claims.
    pub mac: Mac,
}

impl Station {
    /// The first that there can be, in their order.
    pub const FIRST: Self = Self { port: IfIndex(NonZeroU32::MIN), mac: Mac::ZERO };
    /// The last that there can be.
    pub const LAST: Self = Self { port: IfIndex(NonZeroU32::MAX), mac: Mac::BROADCAST };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bridge_is_named_as_the_kernel_allows() {
        for name in ["rt0", "br-0123456789ab", "x", "ünï"] {
            assert_eq!(name.parse::<BridgeName>().unwrap().as_str(), name);
        }
        for name in ["", ".", "..", "a/b", "a b", "a:b", "br-0123456789abc", "a\n"] {
            assert!(name.parse::<BridgeName>().is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_domain_reads_like_a_vlan_device() {
        let bridge = "rt0".parse().unwrap();
        assert_eq!(Domain::untagged(bridge).to_string(), "rt0");
        assert_eq!(Domain { bridge, vlan: VlanId::new(12) }.to_string(), "rt0.12");
        assert_eq!([VlanId::new(0), VlanId::new(4095)], [None, None]);
    }
}
