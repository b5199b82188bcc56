//! Where everything goes in the picture of a bridge: rows of ports below a bar, and ties below the rows.
//!
//! Those who contest an address stand side by side in one row if a row has room for them, so that their tie is short.

use std::collections::HashMap;

use super::ports::Port;
use crate::http::api::Incident;

/// Ties that are drawn below one row; more are counted.
const TIES: usize = 6;

/// Some ports of a bridge, beside each other.
#[derive(Debug, Default)]
pub(super) struct Row<'a> {
    pub(super) ports: Vec<&'a Port<'a>>,
    /// From the row downwards.
    pub(super) ties: Vec<Tie<'a>>,
    /// Ties that have no room.
    pub(super) untied: usize,
}

/// What ties those together who contest an address, as far as they are in one row.
#[derive(Debug)]
pub(super) struct Tie<'a> {
    pub(super) incident: &'a Incident,
    /// The columns of those who are tied, from the left.
    pub(super) columns: Vec<usize>,
}

pub(super) fn placed<'a>(ports: &[&'a Port<'a>], columns: usize) -> Vec<Row<'a>> {
    let mut rows: Vec<Vec<&Port<'_>>> = Vec::new();
    for group in ports.chunk_by(|one, next| first(one).is_some() && first(one) == first(next)) {
        let room = rows.last().map_or(0, |row| columns - row.len());
        let begin = if group.len() > room && group.len() <= columns { 0 } else { room };
        let (here, below) = group.split_at(begin.min(group.len()));
        rows.last_mut().into_iter().for_each(|row| row.extend(here));
        rows.extend(below.chunks(columns).map(<[_]>::to_vec));
    }
    rows.into_iter().map(tied).collect()
}

/// The incident that says where a port stands: the first that it is in.
fn first(port: &Port<'_>) -> Option<u64> {
    port.contested().map(|of| of.incident.id).min()
}

fn tied<'a>(ports: Vec<&'a Port<'a>>) -> Row<'a> {
    let mut ties: Vec<Tie<'_>> = Vec::new();
    let mut known = HashMap::new();
    for (column, port) in ports.iter().enumerate() {
        for of in port.contested() {
            let place = *known.entry(of.incident.id).or_insert(ties.len());
            match ties.get_mut(place) {
                Some(tie) => tie.columns.push(column),
                None => ties.push(Tie { incident: of.incident, columns: vec![column] }),
            }
        }
    }
    ties.iter_mut().for_each(|tie| tie.columns.dedup());
    let untied = ties.len().saturating_sub(TIES);
    ties.truncate(TIES);
    Row { ports, ties, untied }
}
