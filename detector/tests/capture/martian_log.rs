//! The kernel's own word on martians, provoked and read.

use std::{fs, io::ErrorKind, time::Duration};

use detector::{
    capture::{KernelMartian, MartianKind, MartianLog},
    net::{ArpPacket, Mac, Operation},
};
use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};

use crate::lab::{ADDRESS, DEADLINE, GATEWAY, alone, ip, say, wire};

/// How long to wait for a line before it is provoked again: the kernel's limit of such lines is one for the machine.
const AGAIN: Duration = Duration::from_millis(300);

fn set(sysctl: &str) {
    fs::write(format!("/proc/sys/net/ipv4/{sysctl}"), "1").unwrap();
}

/// Makes the kernel of the `port`'s namespace log martians, and follows its log.
fn follow() -> MartianLog {
    wire("sandbox", "port");
    ip("addr add 10.8.64.2/24 dev port\n");
    set("ip_forward");
    set("conf/all/log_martians");
    MartianLog::open().unwrap()
}

/// Every martian up to the first that `mac` provokes, which asks in the name of an address that the listener has.
async fn provoke(log: &mut MartianLog, mac: Mac) -> Vec<KernelMartian> {
    let (sender, target) = (ADDRESS, GATEWAY);
    let packet = ArpPacket { operation: Operation::Request, sender_mac: mac, sender, target_mac: Mac::ZERO, target };
    let mut heard: Vec<KernelMartian> = Vec::new();
    let provoked = async {
        while heard.last().is_none_or(|martian| martian.frame_source != Some(mac)) {
            say("sandbox", &packet.broadcast_frame(None));
            if let Ok(martian) = tokio::time::timeout(AGAIN, log.next()).await {
                heard.push(martian.unwrap());
            }
        }
    };
    tokio::time::timeout(DEADLINE, provoked).await.expect("the kernel logs no martian source");
    heard
}

#[test]
fn a_martian_that_the_kernel_logs_is_told_of_with_its_frame() {
    alone(async || {
        let mut log = follow();
        for last in [0x31, 0x32] {
            let martian = provoke(&mut log, Mac([2, 0, 0, 0x77, 0, last])).await.pop().unwrap();
            assert_eq!((martian.kind, martian.device.as_str()), (MartianKind::Source, "port"));
            assert_eq!((martian.source, martian.target), (ADDRESS, GATEWAY));
            assert_eq!((martian.frame_destination, martian.is_arp()), (Some(Mac::BROADCAST), true));
        }
    });
}

#[test]
fn what_user_space_writes_into_the_log_is_no_martian() {
    alone(async || {
        let mut log = follow();
        let forged = Mac([2, 0, 0, 0x77, 0, 0x41]);
        let frame = forged.to_string().replace(':', " ");
        for line in [
            "<4>IPv4: martian source 10.8.64.1 from 10.8.64.99, on dev forged".to_owned(),
            format!("<4>ll header: 00000000: ff ff ff ff ff ff {frame} 08 06"),
        ] {
            fs::write("/dev/kmsg", line).unwrap();
        }
        let heard = provoke(&mut log, Mac([2, 0, 0, 0x77, 0, 0x42])).await;
        let is_forged = |martian: &KernelMartian| martian.device == "forged" || martian.frame_source == Some(forged);
        assert!(!heard.iter().any(is_forged), "{heard:?}");
    });
}

#[test]
fn a_machine_that_shows_no_log_says_why() {
    alone(async || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
        let kind = || MartianLog::open().err().expect("there is no log").kind();
        // As some container tools do.
        mount_bind("/dev/null", "/dev/kmsg").unwrap();
        assert_eq!(kind(), ErrorKind::InvalidInput);
        mount("tmpfs", "/dev", "tmpfs", MountFlags::empty(), None).unwrap();
        assert_eq!(kind(), ErrorKind::NotFound);
    });
}
