//! Version numbers, as programs print them.

use std::fmt;

/// Major, minor and patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(pub u32, pub u32, pub u32);

impl Version {
    /// The first version number in a text such as `rustc 1.97.0-nightly (e50aa6fba 2026-05-19)`.
    pub(super) fn find(text: &str) -> Option<Self> {
        text.split_whitespace().find_map(Self::parse)
    }

    /// `1.95`, `1.97.0-nightly`: what stands after the numbers is left out, a patch that is not there is 0.
    fn parse(word: &str) -> Option<Self> {
        let numbers = word.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
        let mut numbers = numbers.split('.').map(str::parse);
        let (major, minor) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        Some(Self(major, minor, numbers.next().and_then(Result::ok).unwrap_or(0)))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_print() {
        for (text, version) in [
            ("rustc 1.97.0-nightly (e50aa6fba 2026-05-19)", Version(1, 97, 0)),
            ("bpf-linker 0.10.3", Version(0, 10, 3)),
            ("1.95", Version(1, 95, 0)),
            ("LLVM version: 22.1.8", Version(22, 1, 8)),
        ] {
            assert_eq!(Version::find(text), Some(version), "{text}");
        }
        assert_eq!(Version::find("no version at all"), None);
        assert!(Version(0, 9, 15) < Version(0, 10, 3) && Version(0, 10, 10) > Version(0, 10, 3));
    }
}
