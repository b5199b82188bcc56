//! The agent's process, as the kernel has it: its limits, and where it listens.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{net::TcpStream, time::timeout};

use super::{
    Check,
    topics::{self, Topic},
};

/// Fewer open files than this may not do for a bridge that is full.
const FILES: u64 = 4096;
/// Before Linux 5.11 maps count as locked memory; this is about what they take, in bytes.
const MEMORY: u64 = 64 << 20;
/// In which state a socket listens (`TCP_LISTEN` in `include/net/tcp_states.h`).
const LISTENS: &str = "0A";
/// How long a connection may take on one machine.
const PATIENCE: Duration = Duration::from_secs(2);

/// Looks at the agent's process, if there is one.
pub(super) async fn examine(agent: Option<u32>) -> Vec<Check> {
    let Some(pid) = agent else {
        const NONE: &str = "no agent is seen here, and what this process may is not what an agent would";
        return [topics::LIMIT_FILES, topics::LIMIT_MEMLOCK].map(|topic| Check::skipped(topic, NONE)).into();
    };
    let folder = PathBuf::from(format!("/proc/{pid}"));
    let limits = fs::read_to_string(folder.join("limits")).unwrap_or_default();
    let mut checks = vec![files(limit(&limits, "Max open files")), memory(limit(&limits, "Max locked memory"))];
    checks.extend(listens(&folder).await);
    checks
}

/// The soft limit of this name in `/proc/PID/limits`; the greatest number for no limit.
fn limit(limits: &str, name: &str) -> Option<u64> {
    let value = limits.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?;
    if value == "unlimited" { Some(u64::MAX) } else { value.parse().ok() }
}

fn files(limit: Option<u64>) -> Check {
    const NAME: &Topic = topics::LIMIT_FILES;
    match limit {
        None => Check::skipped(NAME, "the agent's limits cannot be read").cure("run as root"),
        Some(limit @ ..FILES) => {
            Check::warning(NAME, format!("the agent may have {limit} files open, which a full bridge may need"))
                .cure("LimitNOFILE=65536 in the unit (systemctl edit dupip), or ulimit -n 65536")
        }
        Some(_) => Check::ok(NAME, "the agent may have as many files open as it needs"),
    }
}

fn memory(limit: Option<u64>) -> Check {
    const NAME: &Topic = topics::LIMIT_MEMLOCK;
    match limit {
        None => Check::skipped(NAME, "the agent's limits cannot be read").cure("run as root"),
        Some(limit @ ..MEMORY) => Check::ok(
            NAME,
            format!(
                "the agent may lock {limit} bytes: enough from Linux 5.11 on, and before if it may raise its limit"
            ),
        ),
        Some(_) => Check::ok(NAME, "the agent may lock as much memory as it needs"),
    }
}

async fn listens(folder: &Path) -> Vec<Check> {
    const NAME: &Topic = topics::AGENT_LISTENS;
    let sockets = match sockets(folder) {
        Ok(sockets) => sockets,
        Err(error) => {
            return vec![
                Check::skipped(NAME, format!("the agent's sockets cannot be seen: {error}")).cure("run as root"),
            ];
        }
    };
    let tables = ["net/tcp", "net/tcp6"].map(|name| fs::read_to_string(folder.join(name)).unwrap_or_default());
    let at: BTreeSet<_> = tables.iter().flat_map(|table| listening(table, &sockets)).collect();
    if at.is_empty() {
        return vec![Check::ok(NAME, "the agent listens on its Unix socket only: there are no metrics to scrape")];
    }
    let is_here = fs::read_link(folder.join("ns/net")).ok() == fs::read_link("/proc/self/ns/net").ok();
    let mut checks = Vec::new();
    for address in at {
        checks.push(reached(address, is_here).await.of(address));
    }
    checks
}

async fn reached(address: SocketAddr, is_here: bool) -> Check {
    const NAME: &Topic = topics::AGENT_LISTENS;
    let to =
        if address.ip().is_unspecified() { SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())) } else { address };
    match (timeout(PATIENCE, TcpStream::connect(to)).await, address.ip().is_loopback()) {
        (Ok(Err(error)), _) if is_here => {
            Check::warning(NAME, format!("the agent listens there and cannot be reached: {error}")).cure(
                "look for rules that drop it (nft list ruleset), and whether the agent hangs (systemctl restart dupip)",
            )
        }
        (Err(_), _) if is_here => Check::warning(NAME, "the agent listens there and does not answer").cure(
            "look for rules that drop it (nft list ruleset), and whether the agent hangs (systemctl restart dupip)",
        ),
        (_, true) => Check::ok(NAME, "the agent listens on this machine only"),
        // It refuses to listen there otherwise.
        (_, false) => Check::ok(NAME, "the agent listens beyond loopback, over HTTPS and with a token"),
    }
}

/// The inodes of a process's sockets.
fn sockets(folder: &Path) -> std::io::Result<BTreeSet<String>> {
    let targets = fs::read_dir(folder.join("fd"))?.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let inode = |target: PathBuf| Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned());
    Ok(targets.filter_map(inode).collect())
}

/// Where these sockets listen, by a table such as `/proc/net/tcp` (`Documentation/networking/proc_net_tcp.rst`).
fn listening<'a>(table: &'a str, sockets: &'a BTreeSet<String>) -> impl Iterator<Item = SocketAddr> + 'a {
    table.lines().skip(1).filter_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let is_it = words.get(3) == Some(&LISTENS) && words.get(9).is_some_and(|inode| sockets.contains(*inode));
        words.get(1).filter(|_| is_it).and_then(|word| address(word))
    })
}

/// An address as the table has it: words of the machine's order in hexadecimal digits, and the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let word = |at: usize| Some(u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    let ip: IpAddr = match address.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let bytes: Vec<u8> = [word(0)?, word(8)?, word(16)?, word(24)?].concat();
            Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Status;

    #[test]
    fn limits_are_read_as_the_kernel_writes_them() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max open files            1024                 1048576              files     \n\
                      Max locked memory         unlimited            unlimited            bytes     \n";
        assert_eq!((limit(limits, "Max open files"), limit(limits, "Max locked memory")), (Some(1024), Some(u64::MAX)));
        assert_eq!(limit(limits, "Max cpu time"), None);
        let status = |limit| files(limit).status;
        assert_eq!([None, Some(1024), Some(65536)].map(status), [Status::Skipped, Status::Warning, Status::Ok]);
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn a_table_says_where_a_process_listens() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:2505 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 77 1 0 100 0 0 10 0\n\
             1: 0100007F:2505 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 77 1 0 100 0 0 10 0\n\
             2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 78 1 0 100 0 0 10 0\n\
             garbage\n";
        let sockets = ["77".to_owned()].into();
        assert_eq!(listening(table, &sockets).collect::<Vec<_>>(), ["127.0.0.1:9477".parse().unwrap()]);
        assert_eq!(address("00000000000000000000000001000000:2505"), "[::1]:9477".parse().ok());
        assert_eq!((address("0100007F"), address("xx:1")), (None, None));
    }
}
