//! Runs its arguments as a program for which the kernel refuses `bpf()` with EPERM, as where a container's own filter of
//! system calls does. The other way, no such call (ENOSYS), is asked for by the environment variable `BPF_ERRNO`.

use std::{collections::BTreeMap, env, os::unix::process::CommandExt as _, process::Command};

use anyhow::{Context as _, Result};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

fn main() -> Result<()> {
    let mut words = env::args_os().skip(1);
    let program = words.next().context("name a program and its arguments")?;
    apply_filter(&refusal(errno())?).context("the kernel takes no filter of system calls")?;
    let error = Command::new(&program).args(words).exec();
    Err(error).with_context(|| format!("cannot start {}", program.display()))
}

fn errno() -> i32 {
    if env::var_os("BPF_ERRNO").is_some_and(|name| name == "ENOSYS") { libc::ENOSYS } else { libc::EPERM }
}

/// Every other call is let through.
fn refusal(errno: i32) -> Result<BpfProgram> {
    let refused = SeccompAction::Errno(errno.unsigned_abs());
    let calls = BTreeMap::from([(libc::SYS_bpf, Vec::new())]);
    let filter = SeccompFilter::new(calls, SeccompAction::Allow, refused, env::consts::ARCH.try_into()?)?;
    Ok(filter.try_into()?)
}
