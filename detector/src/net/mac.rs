//! Ethernet hardware addresses.

use std::{fmt, str::FromStr};

/// An EUI-48 hardware address, in the order in which its bytes go over the wire.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

/// A text that is not six hexadecimal bytes with colons between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidMac(String);

impl Mac {
    /// `ff:ff:ff:ff:ff:ff`: everybody on the bridge.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// `00:00:00:00:00:00`: what an ARP request has for a target it does not know (RFC 826).
    pub const ZERO: Self = Self([0; 6]);
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mac({self})")
    }
}

impl FromStr for Mac {
    type Err = InvalidMac;

    fn from_str(text: &str) -> Result<Self, InvalidMac> {
        parse(text).ok_or_else(|| InvalidMac(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Mac> {
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        *byte = parts
            .next()
            .filter(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|part| u8::from_str_radix(part, 16).ok())?;
    }
    parts.next().is_none().then_some(Mac(bytes))
}

impl fmt::Display for InvalidMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a MAC address such as 02:42:0a:08:40:02", self.0)
    }
}

impl std::error::Error for InvalidMac {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_goes_both_ways() {
        let mac = Mac([0xee, 0x45, 0xb1, 0xfe, 0x2d, 0xdb]);
        assert_eq!(mac.to_string(), "ee:45:b1:fe:2d:db");
        assert_eq!("EE:45:b1:fe:2d:db".parse(), Ok(mac));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in
            ["", "ee:45:b1:fe:2d", "ee:45:b1:fe:2d:db:00", "ee-45-b1-fe-2d-db", "+e:45:b1:fe:2d:db", "e:45:b1:fe:2d:db"]
        {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }
}
