//! What keeps strangers out beyond loopback: a certificate, so that nobody listens in, and a token, so that only those who
//! have it are answered.

use std::{fmt, path::PathBuf, sync::Arc};

use rustls::{
    ServerConfig, crypto,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    version::{TLS12, TLS13},
};
use subtle::ConstantTimeEq as _;

use super::reread::{Named, Reread, Unusable};

/// The shortest token, in bytes: 128 bits, even if it is written in hexadecimal digits.
const SHORTEST: usize = 32;
/// The longest token, in bytes: it has to fit into a header.
const LONGEST: usize = 1024;

/// The files that have them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SecretFiles {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    pub(super) token: PathBuf,
}

/// A certificate with its key, and the token, each read again when its file changes.
#[derive(Debug)]
pub(super) struct Secrets {
    certificate: Reread<ServerConfig>,
    token: Reread<Token>,
}

impl Secrets {
    pub(super) fn open(files: SecretFiles) -> Result<Self, Unusable> {
        let SecretFiles { certificate, key, token } = files;
        let certificate = Named { flag: "--tls-certificate", path: certificate };
        let key = Named { flag: "--tls-key", path: key };
        let token = Named { flag: "--token-file", path: token };
        let pair = vec![certificate.path.clone(), key.path.clone()];
        Ok(Self {
            certificate: Reread::open(pair, move || tls(&certificate, &key))?,
            token: Reread::open(vec![token.path.clone()], move || Token::read(&token))?,
        })
    }

    /// Both as of now. Asks the file system, which may be slow.
    pub(super) fn now(&self) -> (Arc<ServerConfig>, Arc<Token>) {
        (self.certificate.now(), self.token.now())
    }
}

/// TLS 1.2 and 1.3 with this certificate, if the key is its own.
fn tls(certificate: &Named, key: &Named) -> Result<ServerConfig, Unusable> {
    let chain = CertificateDer::pem_slice_iter(&certificate.read()?).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| certificate.content(format_args!("no PEM: {error}")))?;
    if chain.is_empty() {
        return Err(certificate.content("there is no certificate in it"));
    }
    let private = PrivateKeyDer::from_pem_slice(&key.read_secret()?);
    let private = private.map_err(|error| key.content(format_args!("no private key in PEM: {error}")))?;
    let tls = ServerConfig::builder_with_provider(crypto::ring::default_provider().into())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .and_then(|tls| tls.with_no_client_auth().with_single_cert(chain, private));
    let mut tls = tls.map_err(|error| key.content(format_args!("not for this certificate: {error}")))?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(tls)
}

/// What a request has to bear.
pub(super) struct Token(Vec<u8>);

impl Token {
    fn read(file: &Named) -> Result<Self, Unusable> {
        let text = file.read_secret()?;
        let token = text.trim_ascii();
        let is_of_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte);
        match token.len() {
            short if short < SHORTEST => Err(file.content(format_args!(
                "a token of {short} characters can be guessed; take at least {SHORTEST}, as from: openssl rand -hex 32"
            ))),
            long if long > LONGEST => Err(file.content(format_args!("a token has at most {LONGEST} characters"))),
            _ if !token.iter().all(is_of_token) => {
                Err(file.content("a token has letters, digits and -._~+/= (RFC 6750), and there is one in a file"))
            }
            _ => Ok(Self(token.to_vec())),
        }
    }

    /// Whether it is this one. How long that takes says nothing of where they differ.
    pub(super) fn is(&self, said: &[u8]) -> bool {
        self.0.ct_eq(said).into()
    }
}

/// Nobody reads it in a log.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}
