//! Whose programs look at the frames of an interface by its clsact discipline.

use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcMessage},
};

use super::{Error, host::Host};
use crate::{
    capture::{Side, filter_program},
    net::IfIndex,
};

const SIDES: [(Side, &str); 2] = [(Side::Ingress, "ingress"), (Side::Egress, "egress")];

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
        for (place, side) in SIDES {
            let mut request = TcMessage::with_index(interface.get().cast_signed());
            request.header.parent = place.clsact();
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
    let kind = message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Kind(kind) => Some(kind.clone()),
        _ => None,
    })?;
    Some(Filter { side, kind, name: filter_program(message).unwrap_or_default() })
}
