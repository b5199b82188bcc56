//! Whether a program listens, from procfs (proc(5)).

use std::{collections::BTreeSet, fs};

use anyhow::{Context as _, Result};

/// How many packet sockets that listen on an interface a process and all below it have (packet(7)).
pub(super) fn sockets(pid: u32) -> Result<usize> {
    let table = fs::read_to_string(format!("/proc/{pid}/net/packet"))?;
    let bound: BTreeSet<String> = table.lines().filter_map(bound).map(|inode| format!("socket:[{inode}]")).collect();
    let files = family(pid)?.into_iter().filter_map(|pid| fs::read_dir(format!("/proc/{pid}/fd")).ok());
    let links = files.flatten().filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    Ok(links.filter(|link| bound.contains(&*link.to_string_lossy())).count())
}

/// A process and all below it, itself first.
fn family(pid: u32) -> Result<Vec<u32>> {
    let mut all = vec![pid];
    for thread in fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid} is gone"))? {
        let children = fs::read_to_string(thread?.path().join("children")).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|child| child.parse().ok());
        all.extend(children.flat_map(|child| family(child).unwrap_or_default()));
    }
    Ok(all)
}

/// The inode of a socket that is bound to an interface and runs: `sk RefCnt Type Proto Iface R Rmem User Inode`.
fn bound(line: &str) -> Option<&str> {
    let mut fields = line.split_whitespace().skip(4);
    let (interface, runs, inode) = (fields.next()?, fields.next()?, fields.nth(2)?);
    (interface != "0" && runs == "1").then_some(inode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_listens_once_it_is_bound_and_runs() {
        let line = |interface, runs| {
            format!("00000000e36b1df7 3      3    0003   {interface}     {runs} 0      0      11555244")
        };
        assert_eq!(bound(&line(3, 1)), Some("11555244"));
        assert_eq!((bound(&line(0, 1)), bound(&line(3, 0))), (None, None));
        assert_eq!(bound("sk               RefCnt Type Proto  Iface R Rmem   User   Inode"), None);
    }

    #[test]
    fn a_process_is_the_first_of_its_family() {
        let pid = std::process::id();
        assert_eq!(family(pid).unwrap().first(), Some(&pid));
        assert!(family(u32::MAX).is_err());
    }
}
