//! dupip as a CNI plugin that gives addresses (an IPAM plugin), for runtimes that make a container's network by
//! [CNI](https://github.com/containernetworking/cni/blob/spec-v1.1.0/SPEC.md), versions 0.3.0 to 1.1.0.
//!
//! A plugin such as `bridge` calls this program under the name `dupip-ipam`: what is to be done stands in the environment
//! (`call`), the network's configuration on standard input (`conf` as it is written, `place` and `network` checked), the
//! answer goes to standard output. Each command is one file. The configuration is host-local's, so that a network is
//! moved here by changing the `type` of its `ipam`.
//!
//! A lease is held by container and interface. ADD is safe to ask again, and DEL and GC only ever let a lease drain.

mod add;
mod answer;
mod call;
mod check;
mod conf;
mod del;
mod failure;
mod gc;
mod look;
mod network;
mod place;
#[cfg(any(test, fuzzing))]
pub mod properties;
mod resolv_conf;
mod status;
mod version;

#[cfg(test)]
mod tests;

use std::{
    env,
    ffi::OsStr,
    io::{self, Read, Write as _},
    panic::{self, AssertUnwindSafe},
    path::Path,
    process::ExitCode,
};

use call::{Attachment, Command, Environment};
use conf::NetConf;
use failure::{Code, Failure};
use version::Version;

/// The name that the program is called by as a plugin, and that stands as `type` in a configuration.
const NAME: &str = "dupip-ipam";

/// The longest configuration that is read, in bytes: GC's names each attachment, of which a host has thousands.
const LIMIT: u64 = 16 << 20;

/// Whether the program was called as a plugin: by the plugin's name, or by nothing but the environment.
#[must_use]
pub fn is_called() -> bool {
    let mut args = env::args_os();
    let by_name = args.next().is_some_and(|program| Path::new(&program).file_name() == Some(OsStr::new(NAME)));
    by_name || (args.next().is_none() && env::var_os("CNI_COMMAND").is_some())
}

/// Does what the runtime asks for and answers on standard output.
#[must_use]
pub fn run() -> ExitCode {
    let env = |name: &str| env::var(name).ok();
    // A panic has said already where it came from.
    let done = panic::catch_unwind(AssertUnwindSafe(|| answer(&env, io::stdin().lock())));
    let (text, code) = match done.unwrap_or_else(|_| Err(bug())) {
        Ok(text) => (text, ExitCode::SUCCESS),
        Err(text) => (text, ExitCode::FAILURE),
    };
    match io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The answer: a result or, as an error, a failure.
fn answer(env: Environment<'_>, stdin: impl Read) -> Result<String, String> {
    let said = |version| move |failure: Failure| answer::failed(version, &failure);
    let command = Command::of(env).map_err(uncalled).map_err(said(Version::NEWEST))?;
    if command == Command::Version {
        return answer::versions().map_err(said(Version::NEWEST));
    }
    let text = read(stdin).map_err(said(Version::NEWEST))?;
    let version = conf::version(&text).map_err(said(Version::NEWEST))?;
    obey(command, version, env, &text).map_err(said(version))
}

fn obey(command: Command, version: Version, env: Environment<'_>, text: &str) -> Result<String, Failure> {
    let conf = NetConf::of(text)?;
    let done = match command {
        Command::Add => return add::add(version, &conf, Attachment::of(env)?, call::wanted(env)?),
        Command::Version => return answer::versions(),
        Command::Del => del::del(&conf, &Attachment::of(env)?),
        Command::Check => {
            version.must_have("CHECK", Version::V0_4_0)?;
            check::check(&conf, &Attachment::of(env)?)
        }
        Command::Gc => {
            version.must_have("GC", Version::V1_1_0)?;
            gc::gc(&conf)
        }
        Command::Status => {
            version.must_have("STATUS", Version::V1_1_0)?;
            status::status(&conf)
        }
    };
    done.map(|()| String::new())
}

fn read(stdin: impl Read) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    stdin
        .take(LIMIT + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::from(error).about("the network configuration on standard input"))?;
    if bytes.len() as u64 > LIMIT {
        return Err(Failure::new(Code::Io, format_args!("the network configuration is longer than {LIMIT} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| Failure::new(Code::Undecodable, error))
}

fn uncalled(failure: Failure) -> Failure {
    failure.hint("this is a CNI plugin, which container runtimes call; for the command line call the program `dupip`")
}

fn bug() -> String {
    answer::failed(Version::NEWEST, &Failure::new(Code::Bug, "the plugin has a bug: standard error says where"))
}
