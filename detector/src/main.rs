//! The program `dupip`, which is also the CNI plugin `dupip-ipam`.

use std::process::ExitCode;

use detector::{cli::Cli, cni};

fn main() -> ExitCode {
    if cni::is_called() {
        return cni::run();
    }
    Cli::of_process().run().into()
}
