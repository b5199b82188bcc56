//! Where a webhook is, and what of that may be shown.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::{
    Uri,
    header::HeaderValue,
    http::uri::{Authority, Scheme},
};
use percent_encoding::percent_decode_str;

/// A webhook's URL. What is shown of it is scheme and host: with many services the path itself is the key (Slack, Discord),
/// and name, password and query may let anybody in, too.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Without name and password.
    uri: Uri,
    /// What these become.
    authorization: Option<HeaderValue>,
}

/// A text that is no webhook's URL. The text is left out, since it may have a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadEndpoint {
    /// It cannot be read.
    #[error("the URL cannot be read")]
    Unreadable,
    /// It is for another protocol, or for none.
    #[error("a webhook's URL begins with http:// or https:// and names a host")]
    Elsewhere,
}

impl Endpoint {
    /// Where the request goes.
    pub(super) const fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The value of `Authorization`, if the URL had a name or a password.
    pub(super) const fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }

    /// Whether it is spoken to by TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.uri.scheme() == Some(&Scheme::HTTPS)
    }
}

impl FromStr for Endpoint {
    type Err = BadEndpoint;

    fn from_str(text: &str) -> Result<Self, BadEndpoint> {
        let mut parts = text.parse::<Uri>().map_err(|_| BadEndpoint::Unreadable)?.into_parts();
        if !parts.scheme.as_ref().is_some_and(|scheme| [Scheme::HTTP, Scheme::HTTPS].contains(scheme)) {
            return Err(BadEndpoint::Elsewhere);
        }
        let authority = parts.authority.ok_or(BadEndpoint::Elsewhere)?;
        let (place, authorization) = match authority.as_str().rsplit_once('@') {
            Some((user, place)) => (place.parse().map_err(|_| BadEndpoint::Unreadable)?, Some(basic(user)?)),
            None => (authority, None),
        };
        if Authority::host(&place).is_empty() {
            return Err(BadEndpoint::Elsewhere);
        }
        parts.authority = Some(place);
        let uri = Uri::from_parts(parts).map_err(|_| BadEndpoint::Unreadable)?;
        Ok(Self { uri, authorization })
    }
}

/// `NAME:PASSWORD` of a URL as RFC 7617 sends it.
fn basic(user: &str) -> Result<HeaderValue, BadEndpoint> {
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    let plain = [percent_decode_str(name).collect(), vec![b':'], percent_decode_str(password).collect()].concat();
    let value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(plain)));
    let mut value = value.map_err(|_| BadEndpoint::Unreadable)?;
    value.set_sensitive(true);
    Ok(value)
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.uri.scheme_str().unwrap_or_default();
        let authority = self.uri.authority().map_or("", Authority::as_str);
        write!(f, "{scheme}://{authority}/…")
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_scheme_and_host_are_shown() {
        let endpoint: Endpoint = "https://robot:s%3Acret@hooks.example:8443/dupip?token=abc#part".parse().unwrap();
        assert_eq!(endpoint.to_string(), "https://hooks.example:8443/…");
        assert_eq!(format!("{endpoint:?}"), "Endpoint(https://hooks.example:8443/…)");
        assert_eq!(endpoint.uri().to_string(), "https://hooks.example:8443/dupip?token=abc");
        assert_eq!(endpoint.authorization().unwrap(), &format!("Basic {}", STANDARD.encode("robot:s:cret")));
        assert!(endpoint.authorization().unwrap().is_sensitive());
    }

    #[test]
    fn what_is_no_webhook_is_refused() {
        for (text, error) in [
            ("ftp://hooks.example/", BadEndpoint::Elsewhere),
            ("hooks.example", BadEndpoint::Elsewhere),
            ("/a/path", BadEndpoint::Elsewhere),
            ("https://", BadEndpoint::Unreadable),
            ("https://a b/", BadEndpoint::Unreadable),
            ("https://name@/", BadEndpoint::Unreadable),
        ] {
            assert_eq!(text.parse::<Endpoint>(), Err(error), "{text}");
        }
    }
}
