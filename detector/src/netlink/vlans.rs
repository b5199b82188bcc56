//! The VLANs of a bridge that filters them (`RTM_GETVLAN`, Linux 5.6), which the library does not know.

use std::collections::BTreeMap;

use netlink_packet_core::{
    DecodeError, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable, NlaBuffer, NlasIterator,
};
use netlink_packet_route::link::{BridgeVlanInfo, BridgeVlanInfoFlags};
use rustix::io::Errno;

use super::{
    Error,
    route::{Message, Route},
};
use crate::net::{IfIndex, VlanId};

/// `RTM_NEWVLAN`, `RTM_DELVLAN` and `RTM_GETVLAN` (`include/uapi/linux/rtnetlink.h`).
pub(super) const NEW: u16 = 112;
pub(super) const DELETED: u16 = 113;
const GET: u16 = 114;
/// `sizeof(struct br_vlan_msg)` (`include/uapi/linux/if_bridge.h`): the family, three bytes of padding, the interface.
const HEADER: usize = 8;
/// `AF_BRIDGE` (`include/linux/socket.h`).
const AF_BRIDGE: u8 = 7;
/// `BRIDGE_VLANDB_ENTRY`, and in it `BRIDGE_VLANDB_ENTRY_INFO` (`include/uapi/linux/if_bridge.h`).
const ENTRY: u16 = 1;
const ENTRY_INFO: u16 = 1;

/// VLANs of a port, or of a bridge itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Vlans {
    /// Whose; none is everybody's.
    pub(super) interface: Option<IfIndex>,
    /// The one that untagged frames from there go into, if it is among them (`BRIDGE_VLAN_INFO_PVID`).
    pub(super) pvid: Option<VlanId>,
}

/// The VLAN that untagged frames go into, for each port of each bridge, and for the bridges themselves. Who has none lets
/// no untagged frame in. Means something only on bridges that filter VLANs.
pub(super) async fn pvids(route: &mut Route) -> Result<BTreeMap<IfIndex, VlanId>, Error> {
    let answers = route.dump("list the VLANs of bridges", Vlans { interface: None, pvid: None }).await?;
    Ok(answers.into_iter().filter_map(|answer| Some((answer.interface?, answer.pvid?))).collect())
}

/// The VLAN that untagged frames go into at `interface`, a port of a bridge that filters VLANs.
pub(super) async fn pvid(route: &mut Route, interface: IfIndex) -> Result<Option<VlanId>, Error> {
    match route.dump("read the port's VLANs", Vlans { interface: Some(interface), pvid: None }).await {
        Ok(answers) => Ok(answers.into_iter().find_map(|answer| answer.pvid)),
        // `EINVAL`: it is no port any more.
        Err(error) if matches!(error.errno(), Some(Errno::NODEV | Errno::INVAL)) => Err(Error::NoInterface(interface)),
        Err(error) => Err(error),
    }
}

impl Message for Vlans {}

impl NetlinkSerializable for Vlans {
    fn message_type(&self) -> u16 {
        GET
    }

    fn buffer_len(&self) -> usize {
        HEADER
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let [a, b, c, d] = self.interface.map_or(0, IfIndex::get).to_ne_bytes();
        buffer.copy_from_slice(&[AF_BRIDGE, 0, 0, 0, a, b, c, d]);
    }
}

impl NetlinkDeserializable for Vlans {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        if !matches!(header.message_type, NEW | DELETED) {
            return Err(format!("a message of type {} where VLANs are told of", header.message_type).into());
        }
        let (family, attributes) = payload.split_at_checked(HEADER).ok_or("less than `struct br_vlan_msg`")?;
        let index = family.last_chunk().map_or(0, |index| u32::from_ne_bytes(*index));
        Ok(Self { interface: IfIndex::new(index), pvid: pvid_in(attributes)? })
    }
}

fn pvid_in(attributes: &[u8]) -> Result<Option<VlanId>, DecodeError> {
    let mut pvid = None;
    for entry in NlasIterator::new(attributes) {
        let entry = entry?;
        if entry.kind() == ENTRY {
            pvid = pvid.or(pvid_of(entry.value())?);
        }
    }
    Ok(pvid)
}

fn pvid_of(entry: &[u8]) -> Result<Option<VlanId>, DecodeError> {
    for attribute in NlasIterator::new(entry) {
        let attribute: NlaBuffer<&[u8]> = attribute?;
        if attribute.kind() == ENTRY_INFO {
            let info = BridgeVlanInfo::try_from(attribute.value())?;
            return Ok(VlanId::new(info.vid).filter(|_| info.flags.contains(BridgeVlanInfoFlags::Pvid)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
    use proptest::prelude::*;

    use super::{super::wire::messages, *};

    /// A message as the kernel makes it: `struct br_vlan_msg`, then for each VLAN (id and flags) a `BRIDGE_VLANDB_ENTRY`
    /// with its `struct bridge_vlan_info`, the end of the range, and its state.
    fn message(kind: u16, index: u32, vlans: &[(u16, u16)]) -> Vec<u8> {
        let mut bytes = vec![0; 16];
        bytes.extend([AF_BRIDGE, 0, 0, 0]);
        bytes.extend(index.to_ne_bytes());
        for (id, flags) in vlans {
            bytes.extend([28u16.to_ne_bytes(), (0x8000 | ENTRY).to_ne_bytes()].concat());
            for words in [[8, ENTRY_INFO, *flags, *id], [6, 2, *id + 1, 0], [5, 3, 3, 0]] {
                bytes.extend(words.iter().flat_map(|word: &u16| word.to_ne_bytes()));
            }
        }
        let length = u32::try_from(bytes.len()).unwrap();
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Vlans> {
        let message: NetlinkMessage<Vlans> = messages(bytes).next()?.ok()?;
        match message.payload {
            NetlinkPayload::InnerMessage(vlans) => Some(vlans),
            _ => None,
        }
    }

    #[test]
    fn the_vlan_of_untagged_frames_is_the_one_that_says_so() {
        let interface = IfIndex::new(7);
        let pvid = |vlans: &[_]| read(&message(NEW, 7, vlans)).unwrap();
        assert_eq!(pvid(&[(1, 4), (20, 6), (30, 0)]), Vlans { interface, pvid: VlanId::new(20) });
        assert_eq!(pvid(&[(1, 4), (30, 0)]), Vlans { interface, pvid: None });
        assert_eq!(pvid(&[]), Vlans { interface, pvid: None });
        assert_eq!(read(&message(DELETED, 7, &[(20, 0)])), Some(Vlans { interface, pvid: None }));
    }

    #[test]
    fn what_is_cut_off_or_of_another_kind_is_no_answer() {
        assert_eq!(read(&message(GET + 1, 7, &[])), None);
        let whole = message(NEW, 7, &[(20, 6)]);
        for length in [17, 23, 25, 30, 35] {
            let mut cut = whole[..length].to_vec();
            cut[..4].copy_from_slice(&u32::try_from(length).unwrap().to_ne_bytes());
            assert_eq!(read(&cut), None, "{length} bytes");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_odd(bytes in proptest::collection::vec(any::<u8>(), 0..80), kind in NEW..=DELETED) {
            let mut header = NetlinkHeader::default();
            header.message_type = kind;
            let _ = Vlans::deserialize(&header, &bytes);
            let _ = Vlans::deserialize(&header, &[&message(kind, 7, &[])[16..], &bytes].concat());
        }
    }
}
