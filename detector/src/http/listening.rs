//! Where the agent may answer over TCP: on loopback as it is, anywhere else with what keeps strangers out.

use std::{net::SocketAddr, path::PathBuf};

use super::{
    gate::is_own,
    reread::Unusable,
    secrets::{SecretFiles, Secrets},
};

/// The TCP sockets to listen on, and what guards those beyond loopback.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listening {
    addresses: Vec<SocketAddr>,
    /// There, if one of the addresses is beyond loopback.
    secrets: Option<SecretFiles>,
}

/// The files that an address beyond loopback takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guards {
    /// A chain of certificates in PEM.
    pub certificate: Option<PathBuf>,
    /// The first one's private key in PEM.
    pub key: Option<PathBuf>,
    /// The bearer token.
    pub token: Option<PathBuf>,
}

/// An address that other machines can reach, and not all that it takes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "other machines can reach {address}, which takes a certificate and a token: add {}, or listen on 127.0.0.1:{} only",
    .missing.join(" and "),
    .address.port()
)]
pub struct Unguarded {
    address: SocketAddr,
    missing: Vec<&'static str>,
}

impl Listening {
    /// Listens on each of these addresses: on loopback over plain HTTP, anywhere else over HTTPS.
    ///
    /// # Errors
    /// When an address is beyond loopback and not all that it takes is there.
    pub fn new(addresses: Vec<SocketAddr>, guards: Guards) -> Result<Self, Unguarded> {
        let secrets = match addresses.iter().find(|address| is_beyond_loopback(address)) {
            Some(address) => Some(guards.all().map_err(|missing| Unguarded { address: *address, missing })?),
            None => None,
        };
        Ok(Self { addresses, secrets })
    }

    /// Finds out whether the files can be used as they are now, without listening anywhere. Nothing is asked of them if
    /// every address is on loopback.
    ///
    /// # Errors
    /// When one cannot be read, others can open a secret one, or what is in it is not what it should be.
    pub fn check(&self) -> Result<(), Unusable> {
        self.secrets.clone().map_or(Ok(()), |files| Secrets::open(files).map(drop))
    }

    pub(super) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub(super) const fn secrets(&self) -> Option<&SecretFiles> {
        self.secrets.as_ref()
    }
}

impl Guards {
    fn all(self) -> Result<SecretFiles, Vec<&'static str>> {
        match self {
            Self { certificate: Some(certificate), key: Some(key), token: Some(token) } => {
                Ok(SecretFiles { certificate, key, token })
            }
            Self { certificate, key, token } => {
                let files =
                    [("--tls-certificate FILE", certificate), ("--tls-key FILE", key), ("--token-file FILE", token)];
                Err(files.into_iter().filter(|(_, file)| file.is_none()).map(|(flag, _)| flag).collect())
            }
        }
    }
}

/// Whether other machines can reach it.
pub(super) fn is_beyond_loopback(address: &SocketAddr) -> bool {
    !is_own(address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening(address: &str, guards: Guards) -> Result<Listening, String> {
        Listening::new(vec![address.parse().unwrap()], guards).map_err(|error| error.to_string())
    }

    #[test]
    fn what_others_can_reach_is_guarded() {
        for address in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(listening(address, Guards::default()).unwrap().secrets(), None, "{address}");
        }
        let none = Guards::default();
        assert_eq!(
            listening("0.0.0.0:9477", none.clone()).unwrap_err(),
            "other machines can reach 0.0.0.0:9477, which takes a certificate and a token: add --tls-certificate FILE and \
             --tls-key FILE and --token-file FILE, or listen on 127.0.0.1:9477 only"
        );
        let no_token = Guards { certificate: Some("c".into()), key: Some("k".into()), token: None };
        for address in ["[::]:9477", "10.8.64.1:9477", "[2001:db8::1]:9477"] {
            let refusal = listening(address, no_token.clone()).unwrap_err();
            assert!(refusal.contains("add --token-file FILE, or"), "{refusal}");
        }
        let all = Guards { token: Some("t".into()), ..no_token };
        assert!(listening("0.0.0.0:9477", all.clone()).unwrap().secrets().is_some());
        assert_eq!(listening("127.0.0.1:9477", all.clone()).unwrap().secrets(), None);
        let unusable = listening("0.0.0.0:9477", all.clone()).unwrap().check().unwrap_err().to_string();
        assert!(unusable.starts_with("--tls-certificate c: No such file"), "{unusable}");
        listening("127.0.0.1:9477", all).unwrap().check().unwrap();
    }
}
