//! Processes whose namespaces may not be seen, such as those with more rights than we have. Nothing may lead into their
//! network namespace but themselves, so that it is looked at in another way: what the kernel routes to itself there
//! (`/proc/PID/net/fib_trie`, which anybody may read) are the addresses that are configured there.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, ErrorKind},
    net::Ipv4Addr,
    path::Path,
};

/// A process that may not be looked at.
#[derive(Debug)]
pub(super) struct Hidden {
    /// Its number, and what it is called.
    pub(super) name: String,
    /// The addresses of the network namespace that it is in, loopback's left out.
    pub(super) addresses: io::Result<BTreeSet<Ipv4Addr>>,
}

/// The hidden ones among the processes below `proc`.
pub(super) fn processes(proc: &Path) -> io::Result<Vec<Hidden>> {
    let mut hidden = Vec::new();
    for entry in fs::read_dir(proc)? {
        let path = entry?.path();
        let is_process = path.file_name().is_some_and(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit));
        let refused = || fs::metadata(path.join("ns/net")).is_err_and(|no| no.kind() == ErrorKind::PermissionDenied);
        if is_process && refused() {
            hidden.push(Hidden { name: called(&path), addresses: addresses(&path) });
        }
    }
    // Who ended while it was looked at is in no namespace any more.
    hidden.retain(|of| !of.addresses.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound));
    Ok(hidden)
}

fn addresses(process: &Path) -> io::Result<BTreeSet<Ipv4Addr>> {
    Ok(local(&fs::read_to_string(process.join("net/fib_trie"))?))
}

fn called(process: &Path) -> String {
    let comm = fs::read_to_string(process.join("comm")).unwrap_or_default();
    let pid = process.file_name().unwrap_or_default().to_string_lossy();
    format!("process {pid} ({})", comm.trim_end())
}

/// The leaves with a route to the host itself (`fib_trie_seq_show` in `net/ipv4/fib_trie.c`): `|-- ADDRESS`, and below it
/// `/32 host LOCAL`.
fn local(trie: &str) -> BTreeSet<Ipv4Addr> {
    let mut leaf = None;
    let mut local = BTreeSet::new();
    for line in trie.lines().map(str::trim) {
        match line.strip_prefix("|-- ") {
            Some(address) => leaf = address.parse::<Ipv4Addr>().ok(),
            None if line.starts_with("/32 ") && line.ends_with(" LOCAL") => local.extend(leaf),
            None => {}
        }
    }
    local.retain(|address| !address.is_loopback());
    local
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_routed_to_the_host_itself_is_configured_there() {
        let trie = "\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 127.0.0.0/31 1 0 0
        |-- 127.0.0.0
           /8 host LOCAL
        |-- 127.0.0.1
           /32 host LOCAL
     +-- 10.8.64.0/29 2 0 2
        |-- 10.8.64.0
           /24 link UNICAST
        |-- 10.8.64.2
           /32 host LOCAL
        |-- 10.8.64.255
           /32 link BROADCAST
";
        assert_eq!(local(trie), [[10, 8, 64, 2].into()].into());
        assert_eq!(local("|-- nonsense\n/32 host LOCAL\n/32 host LOCAL"), BTreeSet::new());
    }

    #[test]
    fn our_own_namespace_reads_as_the_kernel_lists_it() {
        let listed = std::process::Command::new("ip").args(["-4", "-o", "address"]).output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        let listed = listed.lines().filter_map(|line| line.split_whitespace().nth(3)?.split('/').next()?.parse().ok());
        let listed: BTreeSet<Ipv4Addr> = listed.filter(|address: &Ipv4Addr| !address.is_loopback()).collect();
        assert_eq!(addresses(Path::new("/proc/self")).unwrap(), listed);
        assert!(called(Path::new("/proc/self")).starts_with("process self ("));
    }
}
