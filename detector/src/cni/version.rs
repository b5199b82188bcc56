//! The versions of the specification that are spoken here.

use super::failure::{Code, Failure};

/// A version of the CNI specification. Later ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    V0_3_0,
    V0_3_1,
    V0_4_0,
    V1_0_0,
    V1_1_0,
}

impl Version {
    /// Every version, the oldest first.
    pub(super) const ALL: [Self; 5] = [Self::V0_3_0, Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];
    pub(super) const NEWEST: Self = Self::V1_1_0;

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// The version that a configuration is written in. One that says nothing is of a time before 0.3.0, whose results
    /// looked otherwise.
    pub(super) fn of(text: Option<&str>) -> Result<Self, Failure> {
        let text = text.unwrap_or("0.1.0");
        Self::ALL.into_iter().find(|version| version.as_str() == text).ok_or_else(|| {
            let spoken = Self::ALL.map(Self::as_str).join(", ");
            let what = format_args!("cniVersion {text} is not spoken here").to_string();
            Failure::new(Code::IncompatibleVersion, what).hint(format_args!("set cniVersion to one of {spoken}"))
        })
    }

    /// Refuses a command that came into the specification with `first` only.
    pub(super) fn must_have(self, command: &str, first: Self) -> Result<(), Failure> {
        if self >= first {
            return Ok(());
        }
        let what = format!("cniVersion {} has no {command}", self.as_str());
        let hint = format!("set cniVersion to {} or later", first.as_str());
        Err(Failure::new(Code::IncompatibleVersion, what).hint(hint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_spoken_or_refused_with_those_that_are() {
        for version in Version::ALL {
            assert_eq!(Version::of(Some(version.as_str())), Ok(version));
        }
        for text in [None, Some(""), Some("0.2.0"), Some("1.2.0"), Some("1.0"), Some("2")] {
            let failure = Version::of(text).unwrap_err();
            assert_eq!(failure.code, Code::IncompatibleVersion, "{text:?}");
            assert_eq!(failure.hint.unwrap(), "set cniVersion to one of 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0");
        }
    }

    #[test]
    fn a_command_is_not_older_than_itself() {
        assert_eq!(Version::V0_4_0.must_have("CHECK", Version::V0_4_0), Ok(()));
        let failure = Version::V0_3_1.must_have("CHECK", Version::V0_4_0).unwrap_err();
        assert_eq!((failure.code, failure.what.as_str()), (Code::IncompatibleVersion, "cniVersion 0.3.1 has no CHECK"));
    }
}
