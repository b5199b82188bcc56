//! Who is told of what.

use std::{collections::BTreeSet, fmt, str::FromStr, time::Duration};

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::{
    command::{BadCommand, Command},
    endpoint::{BadEndpoint, Endpoint},
    message::{Occasion, UnknownOccasion},
    patience::Patience,
};

/// Who is told, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookSettings {
    /// Who is told of what; each once.
    hooks: Vec<Hook>,
    /// With what bodies are signed.
    pub secret: Option<Secret>,
    /// How long an attempt may take.
    pub timeout: Duration,
    /// How many attempts may be made at one time.
    pub concurrency: usize,
    /// How often a hook is told that does not take its message.
    pub patience: Patience,
}

impl Default for HookSettings {
    fn default() -> Self {
        Self {
            hooks: Vec::new(),
            secret: None,
            timeout: Duration::from_secs(10),
            concurrency: 4,
            patience: Patience::default(),
        }
    }
}

impl HookSettings {
    /// These hooks, and else what is usual.
    #[must_use]
    pub fn of(hooks: impl IntoIterator<Item = Hook>) -> Self {
        let mut settings = Self::default();
        hooks.into_iter().for_each(|hook| settings.add(hook));
        settings
    }

    /// A target that is there already is told of more, so that it hears everything in its order.
    fn add(&mut self, hook: Hook) {
        match self.hooks.iter_mut().find(|known| known.target == hook.target) {
            Some(known) => known.occasions.extend(hook.occasions),
            None => self.hooks.push(hook),
        }
    }

    /// Who is told.
    #[must_use]
    pub fn hooks(&self) -> &[Hook] {
        &self.hooks
    }

    /// Whether anybody is told by HTTP.
    #[must_use]
    pub fn has_webhooks(&self) -> bool {
        self.hooks.iter().any(|hook| matches!(hook.target, Target::Webhook(_)))
    }

    /// Whether anybody is told by HTTP over TLS.
    pub(super) fn has_tls(&self) -> bool {
        self.hooks.iter().any(|hook| matches!(&hook.target, Target::Webhook(endpoint) if endpoint.is_tls()))
    }
}

/// Somebody who is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Of what.
    pub occasions: BTreeSet<Occasion>,
    /// How.
    pub target: Target,
}

/// How somebody is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A program, on its standard input.
    Command(Command),
    /// A server, by POST.
    Webhook(Endpoint),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(command) => command.fmt(f),
            Self::Webhook(endpoint) => endpoint.fmt(f),
        }
    }
}

/// Which hook a kept message is for: a hash of its command line or URL, so that neither stands on disk.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct HookKey(String);

/// A text that is no hook's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no key of a hook, which is {digits} hexadecimal digits", digits = HookKey::DIGITS)]
pub struct BadHookKey;

impl TryFrom<String> for HookKey {
    type Error = BadHookKey;

    fn try_from(text: String) -> Result<Self, BadHookKey> {
        let is_key = text.len() == Self::DIGITS && text.chars().all(|c| c.is_ascii_hexdigit());
        if is_key { Ok(Self(text)) } else { Err(BadHookKey) }
    }
}

impl Target {
    /// What tells it from other hooks, also in the next run.
    #[must_use]
    pub fn key(&self) -> HookKey {
        let parts: Vec<&[u8]> = match self {
            Self::Command(command) => command.words().map(str::as_bytes).collect(),
            Self::Webhook(endpoint) => return HookKey::of(&[endpoint.uri().to_string().as_bytes(), login(endpoint)]),
        };
        HookKey::of(&parts)
    }
}

fn login(endpoint: &Endpoint) -> &[u8] {
    endpoint.authorization().map_or(&[], |value| value.as_bytes())
}

impl HookKey {
    /// Digits of the hash.
    const DIGITS: usize = 16;

    /// What is safe in a file's name.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    fn of(parts: &[&[u8]]) -> Self {
        // No word of a command and no URL has a zero byte.
        let mut digits = hex(digest(&SHA256, &parts.join(&0)).as_ref());
        digits.truncate(Self::DIGITS);
        Self(digits)
    }
}

/// Bytes in lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A text that is no hook. What stands behind the `=` is left out, since it may have a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHook {
    /// It does not say of what, or not whom.
    #[error("write OCCASION[,OCCASION...]=PROGRAM|URL, as in opened,evicted=/usr/local/bin/rewrite-nat")]
    Form,
    /// It is told of something that never happens.
    #[error(transparent)]
    Occasion(#[from] UnknownOccasion),
    /// There is no such webhook.
    #[error(transparent)]
    Endpoint(#[from] BadEndpoint),
    /// There is no such command.
    #[error(transparent)]
    Command(#[from] BadCommand),
}

impl FromStr for Hook {
    type Err = BadHook;

    fn from_str(text: &str) -> Result<Self, BadHook> {
        let (occasions, target) = text.split_once('=').ok_or(BadHook::Form)?;
        // A `=` of a URL or command line alone must not make its beginning an occasion that is shown.
        if !occasions.chars().all(|c| c.is_ascii_lowercase() || c == ',') || occasions.is_empty() {
            return Err(BadHook::Form);
        }
        Ok(Self { occasions: occasions.split(',').map(str::parse).collect::<Result<_, _>>()?, target: target.parse()? })
    }
}

impl FromStr for Target {
    type Err = BadHook;

    fn from_str(text: &str) -> Result<Self, BadHook> {
        if text.split_whitespace().next().is_some_and(|word| word.contains("://")) {
            return Ok(Self::Webhook(text.trim().parse()?));
        }
        Ok(Self::Command(text.parse()?))
    }
}

/// What bodies are signed with; never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// The most bytes that a secret may have.
    pub const LONGEST: usize = 4096;

    /// A secret as a file has it: a line's end behind it is none of it. `None` if nothing is left, or too much.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let secret = bytes.trim_ascii_end();
        (!secret.is_empty() && secret.len() <= Self::LONGEST).then(|| Self(secret.to_vec()))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_says_of_what_and_whom() {
        let hook: Hook = "opened,evicted=/bin/true 'a b' c".parse().unwrap();
        assert_eq!(hook.occasions, [Occasion::Opened, Occasion::Evicted].into());
        assert_eq!(hook.target.to_string(), "/bin/true");
        let hook: Hook = "resolved=https://u:p@hooks.example/a?b=c".parse().unwrap();
        assert_eq!(hook.target.to_string(), "https://hooks.example/…");
    }

    #[test]
    fn one_target_is_one_hook() {
        let hooks = ["opened=/bin/true", "failed=/bin/true", "opened=/bin/true x"];
        let settings = HookSettings::of(hooks.map(|hook| hook.parse().unwrap()));
        let told: Vec<_> = settings.hooks().iter().map(|hook| hook.occasions.len()).collect();
        assert_eq!(told, [2, 1]);
    }

    #[test]
    fn a_key_is_of_one_target() {
        let texts = ["/bin/true", "/bin/true x y", "/bin/true 'x y'", "http://a/", "http://a/?b", "http://c@a/"];
        let keys: BTreeSet<_> = texts.iter().map(|text| text.parse::<Target>().unwrap().key()).collect();
        assert_eq!(keys.len(), texts.len());
        assert!(keys.iter().all(|key| key.as_str().len() == HookKey::DIGITS));
    }

    #[test]
    fn nonsense_is_refused_and_not_repeated() {
        for (text, reason) in [
            ("", "write OCCASION"),
            ("/bin/true", "write OCCASION"),
            ("=/bin/true", "write OCCASION"),
            ("https://a/?token=sesame", "write OCCASION"),
            ("healed=/bin/true", "there is no occasion `healed`"),
            ("opened,=/bin/true", "there is no occasion ``"),
            ("opened=", "whole path"),
            ("opened=true sesame", "whole path"),
            ("opened=/bin/true 'sesame", "quote"),
            ("opened=ftp://sesame@a/", "begins with http:// or https://"),
            ("opened=http://a/ sesame", "cannot be read"),
        ] {
            let error = text.parse::<Hook>().unwrap_err().to_string();
            assert!(error.contains(reason) && !error.contains("sesame"), "{text}: {error}");
        }
    }

    #[test]
    fn a_secret_is_what_stands_in_the_file_without_its_line_end() {
        assert_eq!(Secret::read(b" sesame \n").unwrap().bytes(), b" sesame");
        assert_eq!(Secret::read(b"\n"), None);
        assert_eq!(Secret::read(&[b'x'; Secret::LONGEST + 1]), None);
        assert_eq!(format!("{:?}", Secret::read(b"sesame")), "Some(Secret)");
    }
}
