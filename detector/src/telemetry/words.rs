//! How parties, moves and errors read in a sentence.

use std::{borrow::Cow, error::Error, fmt, iter};

use crate::engine::{Incident, Party};

/// Parties that a sentence names; more are only counted, so that no sentence is longer than can be read.
const NAMED: usize = 8;

/// A party with where it is.
pub(super) struct At<'a>(pub(super) &'a Party);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outside = if self.0.is_external { "outside, " } else { "" };
        write!(f, "{} ({outside}port {}, {})", self.0.label(), self.0.port_name, self.0.station.mac)
    }
}

/// Some parties.
pub(super) struct List<'a>(pub(super) Vec<&'a Party>);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, party) in self.0.iter().take(NAMED).enumerate() {
            write!(f, "{}{}", if place == 0 { "" } else { " and " }, At(party))?;
        }
        match self.0.len().saturating_sub(NAMED) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// The parties of a duplicate with what they share.
pub(super) struct Parties<'a>(pub(super) &'a Incident);

impl fmt::Display for Parties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Incident { address, domain, .. } = self.0;
        let parties: Vec<&Party> = self.0.contenders().collect();
        let all = if parties.len() > 2 { "all" } else { "both" };
        write!(f, "{} {all} use {address} on {domain}", List(parties))
    }
}

/// Who was moved where.
pub(super) struct Moves<'a>(pub(super) &'a Incident);

impl fmt::Display for Moves<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (port, eviction) in &self.0.evictions {
            let who = self.0.party(*port).map(Party::label).unwrap_or_else(|| format!("port {port}"));
            match &eviction.lease {
                Some(lease) => write!(f, "{who} moved from {} to {}; ", self.0.address, lease.address)?,
                None => write!(f, "{who} was replaced; ")?,
            }
        }
        write!(f, "each address has one owner")
    }
}

/// `text` in one line, without what would make a terminal do things: sandboxes may choose their own names.
#[must_use]
pub fn one_line(text: &str) -> Cow<'_, str> {
    match text.contains(deceives) {
        true => text.chars().map(|c| if deceives(c) { char::REPLACEMENT_CHARACTER } else { c }).collect(),
        false => text.into(),
    }
}

/// Whether a character moves the cursor, has what follows written in another place (Unicode's UAX 9), or is not seen at all.
fn deceives(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        )
}

/// The error with what caused it, as far as its own words do not say so already.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    let causes = iter::successors(error.source(), |&cause| cause.source()).map(ToString::to_string);
    causes.fold(error.to_string(), |said, cause| if said.contains(&cause) { said } else { format!("{said}: {cause}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_ends_no_line_and_turns_none_around() {
        assert_eq!(
            one_line("a\nb\u{1b}[2J\u{202e}c\u{2066}\u{61c}\u{2028}"),
            "a\u{fffd}b\u{fffd}[2J\u{fffd}c\u{fffd}\u{fffd}\u{fffd}"
        );
        assert!(matches!(one_line("rt0 ü"), Cow::Borrowed("rt0 ü")));
    }
}
