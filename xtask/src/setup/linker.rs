//! `bpf-linker`: links the bitcode of the eBPF compiler to an object that the kernel loads.

use anyhow::Result;

use super::{from_cargo::Program, version::Version};

const LINKER: Program = Program {
    name: "bpf-linker",
    // The first release that reads the bitcode of LLVM 22, which is what Rust 1.95 to 1.97 write.
    oldest: Version(0, 10, 3),
    why: "links eBPF programs; must read the bitcode of LLVM 22. Takes a minute or two",
};

pub(super) fn ready() -> Result<String> {
    LINKER.ready()
}
