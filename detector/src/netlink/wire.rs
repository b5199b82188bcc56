//! Datagrams from the kernel, taken apart.

use netlink_packet_core::{
    DecodeError, NLA_HEADER_SIZE, NLM_F_ACK_TLVS, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NlasIterator,
};

/// `sizeof(struct nlmsghdr)` (`include/uapi/linux/netlink.h`).
pub(super) const HEADER_LEN: usize = 16;
/// `NLMSGERR_ATTR_MSG`: the kernel's explanation, as text.
const EXPLANATION: u16 = 1;

/// The messages in a datagram. What cannot be decoded is one error; a length that leads out of the datagram ends it.
pub(super) fn messages<M: NetlinkDeserializable>(
    datagram: &[u8],
) -> impl Iterator<Item = Result<NetlinkMessage<M>, DecodeError>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Some(message) = first(rest) else {
            let left = std::mem::take(&mut rest).len();
            return Some(Err(DecodeError::from(format!("{left} bytes that are no whole netlink message"))));
        };
        rest = rest.get(message.len().next_multiple_of(4)..).unwrap_or_default();
        Some(NetlinkMessage::deserialize(message))
    })
}

fn first(datagram: &[u8]) -> Option<&[u8]> {
    let len = usize::try_from(u32::from_ne_bytes(*datagram.first_chunk()?)).ok()?;
    datagram.get(..len).filter(|message| message.len() >= HEADER_LEN)
}

/// The kernel's explanation of an error, from what follows the error number (`netlink_ack_tlv_fill` in
/// `net/netlink/af_netlink.c`; the socket has `NETLINK_CAP_ACK`, so only the request's header stands before it).
pub(super) fn explanation(header: &NetlinkHeader, after_errno: &[u8]) -> String {
    let attributes = match header.flags & NLM_F_ACK_TLVS {
        0 => &[],
        _ => after_errno.get(HEADER_LEN..).unwrap_or_default(),
    };
    if attributes.len() < NLA_HEADER_SIZE {
        return String::new();
    }
    NlasIterator::new(attributes)
        .filter_map(Result::ok)
        .find(|attribute| attribute.kind() == EXPLANATION)
        .map(|attribute| String::from_utf8_lossy(attribute.value()).trim_end_matches('\0').to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::NLM_F_REQUEST;
    use netlink_packet_route::{RouteNetlinkMessage, link::LinkMessage};

    use super::*;

    fn messages(datagram: &[u8]) -> impl Iterator<Item = Result<NetlinkMessage<RouteNetlinkMessage>, DecodeError>> {
        super::messages(datagram)
    }

    fn bytes(index: u32) -> Vec<u8> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        let mut message = NetlinkMessage::from(RouteNetlinkMessage::NewLink(link));
        message.header.flags = NLM_F_REQUEST;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    #[test]
    fn a_datagram_yields_its_messages_in_order() {
        let datagram = [bytes(7), bytes(9)].concat();
        let lengths: Vec<_> = messages(&datagram).map(|message| message.unwrap().header.length).collect();
        assert_eq!(lengths, [32, 32]);
        assert_eq!(messages(&[]).count(), 0);
    }

    #[test]
    fn what_is_cut_off_or_lies_about_its_length_is_one_error_and_the_end() {
        let whole = bytes(7);
        for cut in 1..whole.len() {
            let results: Vec<_> = messages(&whole[..cut]).collect();
            assert!(matches!(results.as_slice(), [Err(_)]), "{cut} bytes");
        }
        for length in [0u32, 4, 15, 33, u32::MAX] {
            let mut lying = whole.clone();
            lying[..4].copy_from_slice(&length.to_ne_bytes());
            assert!(matches!(messages(&lying).collect::<Vec<_>>().as_slice(), [Err(_)]), "length {length}");
        }
    }

    #[test]
    fn a_bad_message_does_not_hide_the_next() {
        let mut bad = bytes(7);
        bad.truncate(20);
        bad[..4].copy_from_slice(&20u32.to_ne_bytes());
        let datagram = [bad, bytes(9)].concat();
        let results: Vec<_> = messages(&datagram).map(|message| message.is_ok()).collect();
        assert_eq!(results, [false, true]);
    }
}
