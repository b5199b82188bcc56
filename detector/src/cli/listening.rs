//! Where the agent answers over TCP, as flags.

use std::{net::SocketAddr, path::PathBuf, str::FromStr};

use super::exit::{Exit, Failure};
use crate::http::{Guards, Listening};

/// Where to answer over TCP, and what keeps strangers out.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Answering over TCP")]
pub(super) struct ListeningArgs {
    /// Where to answer over TCP, read only; may be given more than once, and `none` alone turns it off. On loopback it is
    /// plain HTTP, for everybody on this machine. Anywhere else it is HTTPS, and whoever asks must bear the token, except
    /// for /healthz and /readyz: that takes the three files below
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        env = "DUPIP_LISTEN",
        default_value = "127.0.0.1:9477",
        value_delimiter = ','
    )]
    listen: Vec<Listen>,
    /// The certificate for HTTPS, with those between it and its root, in PEM. This file and the next two are read again
    /// when they change; one that is broken then leaves in use what was there
    #[arg(long, value_name = "FILE", env = "DUPIP_TLS_CERTIFICATE")]
    tls_certificate: Option<PathBuf>,
    /// The certificate's private key in PEM; only its owner and its group may open it
    #[arg(long, value_name = "FILE", env = "DUPIP_TLS_KEY")]
    tls_key: Option<PathBuf>,
    /// The token, 32 characters or more, as from `openssl rand -hex 32`; asked for as `Authorization: Bearer TOKEN`. Only
    /// the file's owner and its group may open it
    #[arg(long, value_name = "FILE", env = "DUPIP_TOKEN_FILE")]
    token_file: Option<PathBuf>,
}

/// Where to listen, if anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listen(Option<SocketAddr>);

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self(None)),
            _ => text.parse().map(|at| Self(Some(at))).map_err(|_| {
                "neither `none` nor an address and a port such as 127.0.0.1:9477 or [::1]:9477".to_owned()
            }),
        }
    }
}

impl ListeningArgs {
    pub(super) fn listening(&self) -> Result<Listening, Failure> {
        let addresses: Vec<_> = self.listen.iter().filter_map(|listen| listen.0).collect();
        if self.listen.len() > 1 && addresses.len() < self.listen.len() {
            return Err(Failure::new(Exit::Usage, "--listen none turns TCP off, so it stands alone")
                .hint("leave out `none`, or the addresses"));
        }
        let guards = Guards {
            certificate: self.tls_certificate.clone(),
            key: self.tls_key.clone(),
            token: self.token_file.clone(),
        };
        Ok(Listening::new(addresses, guards)?)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Flags {
        #[command(flatten)]
        listening: ListeningArgs,
    }

    fn listening(flags: &[&str]) -> Result<Listening, Failure> {
        Flags::try_parse_from([&["run"], flags].concat()).unwrap().listening.listening()
    }

    fn on(addresses: &[&str]) -> Listening {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        Listening::new(addresses, Guards::default()).unwrap()
    }

    #[test]
    fn several_addresses_or_none() {
        assert_eq!(listening(&[]).unwrap(), on(&["127.0.0.1:9477"]));
        assert_eq!(listening(&["--listen", "none"]).unwrap(), on(&[]));
        let both = on(&["127.0.0.1:1", "[::1]:2"]);
        assert_eq!(listening(&["--listen", "127.0.0.1:1", "--listen", "[::1]:2"]).unwrap(), both);
        assert_eq!(listening(&["--listen", "127.0.0.1:1,[::1]:2"]).unwrap(), both);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let usage = |what: &str| Failure::new(Exit::Usage, what);
        assert_eq!(
            listening(&["--listen", "none", "--listen", "127.0.0.1:1"]).unwrap_err(),
            usage("--listen none turns TCP off, so it stands alone").hint("leave out `none`, or the addresses")
        );
        assert_eq!(
            listening(&["--listen", "127.0.0.1:1,[::]:2", "--tls-key", "key", "--token-file", "token"]).unwrap_err(),
            usage(
                "other machines can reach [::]:2, which takes a certificate and a token: add --tls-certificate FILE, or \
                 listen on 127.0.0.1:2 only"
            )
        );
    }
}
