//! Whose programs look at the frames of an interface by its clsact discipline.

use netlink_packet_core::Nla as _;
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcHandle, TcMessage, TcOption},
};

use super::{Error, host::Host};
use crate::net::IfIndex;

/// `TC_H_CLSACT` (`include/uapi/linux/pkt_sched.h`).
const CLSACT: u16 = 0xffff;
/// `TC_H_MIN_INGRESS` and `TC_H_MIN_EGRESS`.
const SIDES: [(u16, &str); 2] = [(0xfff2, "ingress"), (0xfff3, "egress")];
/// `TCA_BPF_NAME` (`include/uapi/linux/pkt_cls.h`).
const BPF_NAME: u16 = 7;

/// A filter of the clsact discipline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// `ingress` or `egress`.
    pub side: &'static str,
    /// What sort of filter: `bpf`, `flower` and so on.
    pub kind: String,
    /// An eBPF program's name, with its section or file as whoever attached it has it; empty for other filters.
    pub name: String,
}

impl Filter {
    /// Whether it is a tap of dupip.
    #[must_use]
    pub fn is_tap(&self) -> bool {
        detector_ebpf::PROGRAMS.contains(&self.name.as_str())
    }
}

impl Host {
    /// The filters of the clsact discipline of an interface; none if it has no such discipline.
    ///
    /// # Errors
    /// What kept the kernel from listing them.
    pub async fn filters(&mut self, interface: IfIndex) -> Result<Vec<Filter>, Error> {
        let mut filters = Vec::new();
        for (minor, side) in SIDES {
            let mut request = TcMessage::with_index(interface.get().cast_signed());
            request.header.parent = TcHandle { major: CLSACT, minor };
            let answers = self.route.dump("list the filters", RouteNetlinkMessage::GetTrafficFilter(request)).await?;
            filters.extend(answers.iter().filter_map(|answer| filter(answer, side)));
        }
        // One filter is told of several times, for itself and for each of its rules.
        filters.dedup();
        Ok(filters)
    }
}

fn filter(answer: &RouteNetlinkMessage, side: &'static str) -> Option<Filter> {
    let RouteNetlinkMessage::NewTrafficFilter(message) = answer else { return None };
    let options = message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    })?;
    let kind = message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Kind(kind) => Some(kind.clone()),
        _ => None,
    })?;
    Some(Filter { side, kind, name: options.iter().find_map(name).unwrap_or_default() })
}

/// The library knows not every option of every filter, but each one's number and bytes.
fn name(option: &TcOption) -> Option<String> {
    (option.kind() == BPF_NAME && matches!(option, TcOption::Bpf(_) | TcOption::Other(_))).then_some(())?;
    let mut bytes = vec![0; option.value_len()];
    option.emit_value(&mut bytes);
    Some(String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned())
}
