//! What a drill puts into the world, and how all of it goes away again.

use std::{
    fs::{self, File, TryLockError},
    io,
};

use crate::{
    cli::exit::{self, Exit, Failure},
    http::{
        Client,
        api::{Lease, Release, Released, Standing},
    },
    net::{BridgeName, IfName, InvalidName, Ipv4Net},
    netlink::{self, Throwaway},
};

/// Who has the address by right.
pub(super) const KEEPER: &str = "dupip-drill-a";
/// Who comes to it second.
pub(super) const NEWCOMER: &str = "dupip-drill-b";

const DIRECTORY: &str = "/run/dupip";
const LOCK: &str = "/run/dupip/drill.lock";

/// There is one drill at a time on a runner: the names are the same for all. Goes with the value, or with the process.
pub(super) struct Lock(#[expect(dead_code, reason = "to be dropped")] File);

impl Lock {
    pub(super) fn take() -> Result<Self, Failure> {
        let failed = |error: io::Error| {
            let exit = exit::of_io(&error);
            Failure::new(exit, format_args!("cannot lock {LOCK}: {error}")).hint("sudo dupip drill …")
        };
        let opened = fs::create_dir_all(DIRECTORY)
            .and_then(|()| File::options().create(true).truncate(false).write(true).open(LOCK));
        let file = opened.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => {
                Err(Failure::new(Exit::No, "another drill is under way").hint("again when it is over"))
            }
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

/// A sandbox called `name` behind a port of the same name, with `address`, which it may be to `announce`.
pub(super) async fn plant(
    bridge: BridgeName,
    name: &str,
    address: Ipv4Net,
    announce: bool,
) -> Result<Throwaway, Failure> {
    let port: IfName = name.parse().map_err(|error: InvalidName| Failure::new(Exit::Bug, error))?;
    Throwaway::make(bridge, name, port, address, announce).await.map_err(failed)
}

/// Removes the sandboxes of every drill, and gives back their leases; says what there was. To be called with the lock.
pub(super) async fn clear_away(client: &Client) -> Result<Vec<String>, Failure> {
    let sandboxes = Throwaway::remove_leftovers().await.map_err(failed);
    let leases = give_back(client).await;
    let (sandboxes, leases) = (sandboxes?, leases?);
    let leases = leases.into_iter().map(|lease| format!("the lease of {} on {}", lease.owner, lease.address));
    Ok(sandboxes.into_iter().map(|name| format!("the sandbox {name}")).chain(leases).collect())
}

/// Gives back whatever a drill holds, on any bridge. Where something still uses it, it only drains until nothing does.
async fn give_back(client: &Client) -> Result<Vec<Lease>, Failure> {
    let standings: Vec<Standing> = client.ask("/api/v1/leases").await?;
    let mut given = Vec::new();
    for lease in standings.into_iter().map(|standing| standing.lease).filter(is_of_a_drill) {
        let Lease { bridge, vlan, address, owner, generation, .. } = lease.clone();
        let release = Release { bridge, vlan, address, owner, generation, force: false };
        let released: Released = client.change("/api/v1/leases/release", &release).await?;
        given.extend(released.released.then_some(lease));
    }
    Ok(given)
}

fn is_of_a_drill(lease: &Lease) -> bool {
    [KEEPER, NEWCOMER].contains(&lease.owner.as_str()) && ["reserved", "bound"].contains(&lease.state.as_str())
}

/// What kept the kernel from it, by what a person can do.
pub(super) fn failed(error: netlink::Error) -> Failure {
    let exit = match &error {
        netlink::Error::NoBridge(_) | netlink::Error::NotABridge(_) => Exit::Usage,
        error if error.is_not_permitted() => Exit::NotPermitted,
        _ => Exit::No,
    };
    let failure = Failure::new(exit, error);
    if exit == Exit::NotPermitted { failure.hint("sudo dupip drill …") } else { failure }
}
