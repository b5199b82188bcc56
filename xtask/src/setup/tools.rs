//! The command line tools that the build, the lab and the demo call.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Result, bail, ensure};

use super::apt;
use crate::shell;

/// A program, or a file by its whole path, that must be found, the Debian package that brings it, and what it is for.
struct Tool {
    program: &'static str,
    package: &'static str,
    why: &'static str,
}

/// Some of the packages bring services. As installed, most do nothing: keepalived starts only where it finds a configuration,
/// arpwatch only on interfaces that somebody names. Where systemd runs, Debian starts prometheus on port 9090 with nothing
/// to scrape but itself; neither the tests nor the demo need that service: `systemctl disable --now prometheus`.
const TOOLS: &[Tool] = &[
    Tool { program: "cc", package: "gcc", why: "compiles the SQLite that the allocator bundles" },
    Tool { program: "ip", package: "iproute2", why: "makes the lab's namespaces, bridge and sandboxes" },
    Tool { program: "ping", package: "iputils-ping", why: "shows that a sandbox reaches its gateway" },
    Tool { program: "arping", package: "iputils-arping", why: "asks who answers for an address" },
    Tool { program: "nsenter", package: "util-linux", why: "runs a program inside a sandbox" },
    Tool { program: "unshare", package: "util-linux", why: "gives the lab namespaces of its own" },
    Tool { program: "setpriv", package: "util-linux", why: "runs a program with fewer rights" },
    Tool { program: "sysctl", package: "procps", why: "sets ip_forward and log_martians inside a sandbox" },
    Tool { program: "tcpdump", package: "tcpdump", why: "shows what really stood on the wire" },
    Tool { program: "bridge", package: "iproute2", why: "puts the lab's ports into VLANs" },
    Tool { program: "dumpcap", package: "wireshark-common", why: "captures on several ports into one pcapng file" },
    Tool { program: "editcap", package: "wireshark-common", why: "turns a pcap file into pcapng" },
    Tool { program: "tshark", package: "tshark", why: "reads captures, for a second opinion" },
    Tool { program: "arpwatch", package: "arpwatch", why: "judges the same captures as dupip, to be compared" },
    Tool { program: "keepalived", package: "keepalived", why: "moves a virtual address between sandboxes" },
    Tool { program: "prometheus", package: "prometheus", why: "scrapes the agent and judges the alert rules" },
    Tool { program: "promtool", package: "prometheus", why: "tests the alert rules" },
    Tool { program: "curl", package: "curl", why: "asks the agent over HTTPS, as others would" },
    Tool { program: "bpftool", package: "bpftool", why: "shows which programs hang on which port" },
    Tool { program: "dpkg-shlibdeps", package: "dpkg-dev", why: "tells which libraries the Debian package needs" },
    Tool { program: "lintian", package: "lintian", why: "judges the Debian package" },
    Tool {
        program: "mmdebstrap",
        package: "mmdebstrap",
        why: "makes the small Debian that the package is installed into",
    },
    Tool { program: "systemd-analyze", package: "systemd", why: "judges how far the agent's unit is locked up" },
    Tool { program: "chromium", package: "chromium", why: "shows the agent's page as a person would see it" },
    Tool { program: "zsh", package: "zsh", why: "completes commands, to see that it does" },
    Tool { program: "fish", package: "fish", why: "completes commands, to see that it does" },
    Tool { program: "mandoc", package: "mandoc", why: "reads the manual pages, and says what is wrong with them" },
    Tool {
        program: "host-local",
        package: "containernetworking-plugins",
        why: "gives containers addresses beside dupip, and brings the plugin that asks for them",
    },
    Tool { program: "python3", package: "python3", why: "renders the manifests and checks them" },
    Tool { program: "crun", package: "crun", why: "runs the image as a node of Kubernetes would" },
    Tool {
        program: "/usr/share/containers/seccomp.json",
        package: "golang-github-containers-common",
        why: "says which system calls runtimes let a container make",
    },
    Tool { program: "buildah", package: "buildah", why: "makes the image's last stage" },
    Tool { program: "ldd", package: "libc-bin", why: "tells which libraries the image needs" },
];

pub(super) fn ready() -> Result<String> {
    let missing: Vec<_> = TOOLS.iter().filter(|tool| !is_there(tool)).collect();
    if missing.is_empty() {
        return Ok(format!("all {} found, nothing to do", TOOLS.len()));
    }
    ensure!(apt::is_here(), "this system has no apt-get; install with your own package manager:\n{}", listed(&missing));
    apt::install(
        &format!("missing tools:\n{}", listed(&missing)),
        &packages(&missing).into_iter().collect::<Vec<_>>(),
    )?;
    if let Some(tool) = missing.iter().find(|tool| !is_there(tool)) {
        bail!(
            "package {} is installed, and there is still no {} on PATH, in /usr/sbin or in /usr/lib/cni",
            tool.package,
            tool.program
        );
    }
    Ok(format!("all {} found, {} of them just installed", TOOLS.len(), missing.len()))
}

fn is_there(tool: &Tool) -> bool {
    let is_file = tool.program.starts_with('/') && Path::new(tool.program).is_file();
    is_file || shell::find(tool.program).is_some()
}

fn listed(tools: &[&Tool]) -> String {
    tools
        .iter()
        .map(|tool| format!("         {} ({}): {}", tool.program, tool.package, tool.why))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Each package once.
fn packages(tools: &[&Tool]) -> BTreeSet<&'static str> {
    tools.iter().map(|tool| tool.package).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_asked_for_once() {
        let of_util_linux: Vec<_> = TOOLS.iter().filter(|tool| tool.package == "util-linux").collect();
        assert_eq!(of_util_linux.len(), 3);
        assert_eq!(packages(&of_util_linux), ["util-linux"].into());
    }

    #[test]
    fn a_missing_tool_is_listed_with_its_package_and_reason() {
        let line = listed(&[&TOOLS[1]]);
        assert_eq!(line.trim(), "ip (iproute2): makes the lab's namespaces, bridge and sandboxes");
    }
}
