//! b
fn main() -> anyhow::Result<()> {
    aya_build::build_ebpf(
        [aya_build::Package { name: "detector-ebpf", root_dir: "../detector-ebpf", ..Default::default() }],
        aya_build::Toolchain::Custom("dupip-bpf"),
    )
}
