//! The command line tools that the build, the lab and the demo call.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Context as _, Result, bail, ensure};

use super::{Purpose, apt};
use crate::shell;

/// A program, or a file by its whole path, that must be found, the Debian package that brings it, and what it is for.
struct Tool {
    program: &'static str,
    package: &'static str,
    purpose: Purpose,
    why: &'static str,
}

/// Where all of the packages are. Ubuntu, for one, has no `chromium` and no `bpftool`: there one builds and sees the demo.
const DEBIAN: &str = "Debian 12 or newer";

/// Some of the packages bring services. As installed, most do nothing: keepalived starts only where it finds a configuration,
/// arpwatch only on interfaces that somebody names. Where systemd runs, Debian starts prometheus on port 9090 with nothing
/// to scrape but itself, and arpalert; nothing here needs those services: `systemctl disable --now prometheus arpalert`.
const TOOLS: &[Tool] = &[
    Tool {
        program: "cc",
        package: "gcc",
        purpose: Purpose::Build,
        why: "compiles the SQLite that the allocator bundles",
    },
    Tool {
        program: "ip",
        package: "iproute2",
        purpose: Purpose::Lab,
        why: "makes the lab's namespaces, bridge and sandboxes",
    },
    Tool {
        program: "ping",
        package: "iputils-ping",
        purpose: Purpose::Lab,
        why: "shows that a sandbox reaches its gateway",
    },
    Tool {
        program: "arping",
        package: "iputils-arping",
        purpose: Purpose::Tests,
        why: "asks who answers for an address",
    },
    Tool { program: "nsenter", package: "util-linux", purpose: Purpose::Lab, why: "runs a program inside a sandbox" },
    Tool {
        program: "unshare",
        package: "util-linux",
        purpose: Purpose::Lab,
        why: "gives the lab namespaces of its own",
    },
    Tool { program: "setpriv", package: "util-linux", purpose: Purpose::Lab, why: "runs a program with fewer rights" },
    Tool {
        program: "sysctl",
        package: "procps",
        purpose: Purpose::Lab,
        why: "sets ip_forward and log_martians inside a sandbox",
    },
    Tool {
        program: "tcpdump",
        package: "tcpdump",
        purpose: Purpose::Bench,
        why: "shows what really stood on the wire",
    },
    Tool { program: "bridge", package: "iproute2", purpose: Purpose::Lab, why: "puts the lab's ports into VLANs" },
    Tool {
        program: "dumpcap",
        package: "wireshark-common",
        purpose: Purpose::Tests,
        why: "captures on several ports into one pcapng file",
    },
    Tool {
        program: "editcap",
        package: "wireshark-common",
        purpose: Purpose::Tests,
        why: "turns a pcap file into pcapng",
    },
    Tool { program: "tshark", package: "tshark", purpose: Purpose::Bench, why: "reads captures, for a second opinion" },
    Tool {
        program: "arpwatch",
        package: "arpwatch",
        purpose: Purpose::Bench,
        why: "judges the same captures as dupip, to be compared",
    },
    Tool {
        program: "keepalived",
        package: "keepalived",
        purpose: Purpose::Tests,
        why: "moves a virtual address between sandboxes",
    },
    Tool {
        program: "prometheus",
        package: "prometheus",
        purpose: Purpose::Alerts,
        why: "scrapes the agent and judges the alert rules",
    },
    Tool { program: "promtool", package: "prometheus", purpose: Purpose::Tests, why: "tests the alert rules" },
    Tool {
        program: "curl",
        package: "curl",
        purpose: Purpose::Tests,
        why: "asks the agent over HTTPS, as others would",
    },
    Tool {
        program: "bpftool",
        package: "bpftool",
        purpose: Purpose::Tests,
        why: "shows which programs hang on which port",
    },
    Tool {
        program: "dpkg-shlibdeps",
        package: "dpkg-dev",
        purpose: Purpose::Package,
        why: "tells which libraries the Debian package needs",
    },
    Tool { program: "lintian", package: "lintian", purpose: Purpose::Tests, why: "judges the Debian package" },
    Tool {
        program: "mmdebstrap",
        package: "mmdebstrap",
        purpose: Purpose::Tests,
        why: "makes the small Debian that the package is installed into",
    },
    Tool {
        program: "systemd-analyze",
        package: "systemd",
        purpose: Purpose::Tests,
        why: "judges how far the agent's unit is locked up",
    },
    Tool {
        program: "chromium",
        package: "chromium",
        purpose: Purpose::Tests,
        why: "shows the agent's page as a person would see it",
    },
    Tool { program: "zsh", package: "zsh", purpose: Purpose::Tests, why: "completes commands, to see that it does" },
    Tool { program: "fish", package: "fish", purpose: Purpose::Tests, why: "completes commands, to see that it does" },
    Tool {
        program: "mandoc",
        package: "mandoc",
        purpose: Purpose::Tests,
        why: "reads the manual pages, and says what is wrong with them",
    },
    Tool {
        program: "arpalert",
        package: "arpalert",
        purpose: Purpose::Bench,
        why: "hears the same ARP as dupip, to be compared",
    },
    Tool { program: "iperf3", package: "iperf3", purpose: Purpose::Bench, why: "sends real traffic through the tap" },
    Tool {
        program: "host-local",
        package: "containernetworking-plugins",
        purpose: Purpose::Bench,
        why: "gives containers addresses beside dupip, and brings the plugin that asks for them",
    },
    Tool {
        program: "python3",
        package: "python3",
        purpose: Purpose::Tests,
        why: "renders the manifests and checks them",
    },
    Tool {
        program: "crun",
        package: "crun",
        purpose: Purpose::Tests,
        why: "runs the image as a node of Kubernetes would",
    },
    Tool {
        program: "/usr/share/containers/seccomp.json",
        package: "golang-github-containers-common",
        purpose: Purpose::Tests,
        why: "says which system calls runtimes let a container make",
    },
    Tool { program: "buildah", package: "buildah", purpose: Purpose::Tests, why: "makes the image's last stage" },
    Tool { program: "ldd", package: "libc-bin", purpose: Purpose::Tests, why: "tells which libraries the image needs" },
];

pub(super) fn ready(purpose: Purpose) -> Result<String> {
    let wanted = wanted(purpose);
    let missing: Vec<_> = wanted.iter().copied().filter(|tool| !is_there(tool)).collect();
    if missing.is_empty() {
        return Ok(format!("all {} found, nothing to do", wanted.len()));
    }
    ensure!(apt::is_here(), "this system has no apt-get; install with your own package manager:\n{}", listed(&missing));
    apt::install(&format!("missing tools:\n{}", listed(&missing)), &packages(&missing).into_iter().collect::<Vec<_>>())
        .with_context(|| {
            format!("the packages are called as in {DEBIAN}, and other systems may not have all of them")
        })?;
    if let Some(tool) = missing.iter().find(|tool| !is_there(tool)) {
        bail!(
            "package {} is installed, and there is still no {} on PATH, in /usr/sbin or in /usr/lib/cni",
            tool.package,
            tool.program
        );
    }
    Ok(format!("all {} found, {} of them just installed", wanted.len(), missing.len()))
}

fn wanted(purpose: Purpose) -> Vec<&'static Tool> {
    TOOLS.iter().filter(|tool| purpose.needs(tool.purpose)).collect()
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
    fn the_demo_installs_what_it_calls_and_no_more() {
        let of = |purpose| packages(&wanted(purpose));
        assert_eq!(of(Purpose::Build), ["gcc"].into());
        let lab = ["gcc", "iproute2", "iputils-ping", "procps", "util-linux"];
        assert_eq!(of(Purpose::Lab), lab.into());
        assert_eq!(of(Purpose::Alerts), lab.into_iter().chain(["prometheus"]).collect());
        assert_eq!(of(Purpose::Package), ["dpkg-dev", "gcc"].into());
        assert!(of(Purpose::Tests).contains("chromium"));
    }

    #[test]
    fn a_missing_tool_is_listed_with_its_package_and_reason() {
        let line = listed(&[&TOOLS[1]]);
        assert_eq!(line.trim(), "ip (iproute2): makes the lab's namespaces, bridge and sandboxes");
    }
}
