//! A private runner for one test: its own network and mount namespace, so names and bridges are its own, tests run side
//! by side, and the kernel takes everything away when the test's thread ends.

use std::{future::Future, process::Command, thread};

use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

/// Runs `test` on a runner of its own.
pub(crate) fn on_a_runner<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    assert!(rustix::process::geteuid().is_root(), "these tests make network namespaces: run them as root");
    let runner = thread::spawn(|| {
        make_private();
        ip("link set lo up");
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
    });
    if let Err(panic) = runner.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `ip` with `arguments` on the runner and returns what it prints.
pub(crate) fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().expect("the tests need iproute2");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn make_private() {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    mount("tmpfs", "/run", "tmpfs", MountFlags::empty(), None).unwrap();
}
