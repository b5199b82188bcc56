//! What is done about a loser, as an operator has decided: for everybody, in one domain, or for certain owners.

use std::{collections::BTreeMap, fmt, str::FromStr};

use crate::net::{Domain, Owner};

/// What is done about whoever has lost a contest. In each way it is contained first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// It is moved to a fresh address.
    #[default]
    Readdress,
    /// The orchestrator is asked to replace it.
    Recycle,
    /// Nothing more.
    Contain,
}

impl Way {
    /// Every way.
    pub const ALL: [Self; 3] = [Self::Readdress, Self::Recycle, Self::Contain];

    /// The way in one word, as the command line and JSON spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Readdress => "readdress",
            Self::Recycle => "recycle",
            Self::Contain => "contain",
        }
    }
}

/// A word that names no way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownWay(String);

impl fmt::Display for UnknownWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no way `{}` to resolve a duplicate: use readdress, recycle or contain", self.0)
    }
}

impl std::error::Error for UnknownWay {}

impl FromStr for Way {
    type Err = UnknownWay;

    fn from_str(text: &str) -> Result<Self, UnknownWay> {
        Self::ALL.into_iter().find(|way| way.as_str() == text).ok_or_else(|| UnknownWay(text.to_owned()))
    }
}

/// Which way is taken for whom: what is said of an owner comes before what is said of a domain, and that before the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// For everybody else.
    pub default: Way,
    /// In certain domains.
    pub by_domain: BTreeMap<Domain, Way>,
    /// For certain owners; the first that fits counts.
    pub by_owner: Vec<(OwnerPattern, Way)>,
}

impl Ways {
    /// The way for whoever goes by these names.
    #[must_use]
    pub fn of(&self, domain: Domain, owners: &[Owner]) -> Way {
        let fits = |(pattern, _): &&(OwnerPattern, Way)| owners.iter().any(|owner| pattern.is_like(owner));
        let of_owner = self.by_owner.iter().find(fits).map(|(_, way)| *way);
        of_owner.or_else(|| self.by_domain.get(&domain).copied()).unwrap_or(self.default)
    }
}

/// An owner's name, with `*` for whatever may stand in its place: `pod/*`, `*-canary`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerPattern(String);

impl OwnerPattern {
    /// Whether such an owner is meant.
    #[must_use]
    pub fn is_like(&self, owner: &Owner) -> bool {
        let Some((start, rest)) = self.0.split_once('*') else { return self.0 == owner.as_str() };
        let Some(mut left) = owner.as_str().strip_prefix(start) else { return false };
        let mut parts: Vec<&str> = rest.split('*').collect();
        let end = parts.pop().unwrap_or_default();
        for part in parts {
            let Some((_, after)) = left.split_once(part) else { return false };
            left = after;
        }
        left.ends_with(end)
    }
}

/// A text that no owner can be called by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoOwner(String);

impl fmt::Display for NoOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` fits no owner: write a name without white space, or a pattern such as `pod/*`", self.0)
    }
}

impl std::error::Error for NoOwner {}

impl FromStr for OwnerPattern {
    type Err = NoOwner;

    fn from_str(text: &str) -> Result<Self, NoOwner> {
        // What may stand in a name may stand in a pattern.
        text.parse::<Owner>().map(|_| Self(text.to_owned())).map_err(|_| NoOwner(text.to_owned()))
    }
}

impl fmt::Display for OwnerPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(name: &str) -> Owner {
        name.parse().unwrap()
    }

    #[test]
    fn a_star_stands_for_anything() {
        let is_like = |pattern: &str, name: &str| pattern.parse::<OwnerPattern>().unwrap().is_like(&owner(name));
        assert!(is_like("a", "a") && !is_like("a", "ab") && is_like("*", "a"));
        assert!(is_like("pod/*", "pod/7") && !is_like("pod/*", "unit/7"));
        assert!(is_like("*-canary", "web-canary") && !is_like("*-canary", "web-canary-2"));
        assert!(is_like("a*b*c", "a-b-c") && is_like("a*b*c", "abbc") && !is_like("a*b*c", "acb"));
        assert!(is_like("a*a", "aa") && !is_like("a*a", "a"), "what stands for the start cannot be the end too");
        assert!(["", "a b", "a\n*"].iter().all(|text| text.parse::<OwnerPattern>().is_err()));
    }

    #[test]
    fn the_owner_comes_before_the_domain_and_that_before_the_rest() {
        let rt0 = Domain::untagged("rt0".parse().unwrap());
        let rt1 = Domain::untagged("rt1".parse().unwrap());
        let ways = Ways {
            default: Way::Readdress,
            by_domain: [(rt1, Way::Contain)].into(),
            by_owner: vec![("vm-*".parse().unwrap(), Way::Recycle)],
        };
        let (vm, other) = (owner("vm-1"), owner("web"));
        let alone = std::slice::from_ref(&other);
        assert_eq!([ways.of(rt0, alone), ways.of(rt1, alone)], [Way::Readdress, Way::Contain]);
        assert_eq!([ways.of(rt0, &[other, vm.clone()]), ways.of(rt1, &[vm])], [Way::Recycle; 2]);
    }

    #[test]
    fn a_way_is_known_by_its_word() {
        assert!(Way::ALL.into_iter().all(|way| way.as_str().parse() == Ok(way)));
        assert!("restart".parse::<Way>().unwrap_err().to_string().contains("readdress, recycle or contain"));
    }
}
