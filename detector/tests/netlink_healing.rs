//! What healing does in the kernel beside the change of an address, and what a fire drill needs, on runners of their own.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "what a test needs and does not get fails the test")]

mod runner;

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, SocketAddrV6, TcpListener, TcpStream, UdpSocket},
    os::fd::OwnedFd,
    path::Path,
    process::Command,
    sync::mpsc,
    thread,
    time::Duration,
};

use detector::{
    net::{ArpPacket, BridgeName, IfIndex, Ipv4Net, Mac},
    netlink::{
        Destroyed, Error, Host, HostNeighbour, Inside, NetnsFile, PortSurvey, Readdress, THROWAWAY_PREFIX, Throwaway,
        destroy_sockets, readdress,
    },
};
use nix::sched::{CloneFlags, setns};
use runner::{ip, on_a_runner};
use rustix::net::{AddressFamily, Protocol, RawProtocol, SocketType, bind, connect, socket};

const HOST: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 1);
const OLD: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 2);
const NEW: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 9);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 20);

/// A bridge rt0 with the gateway's address, up.
fn make_bridge() {
    ip("link add rt0 type bridge");
    ip("addr add 10.8.64.1/24 dev rt0");
    ip("link set rt0 up");
}

/// A named namespace whose eth0 is behind a port of rt0.
fn make_sandbox(name: &str, port: &str, address: &str) {
    ip(&format!("netns add {name}"));
    // What it says of itself by IPv6 comes whenever it likes.
    inside(name, || fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap());
    ip(&format!("link add {port} type veth peer name eth0 netns {name}"));
    ip(&format!("link set {port} master rt0 up"));
    ip(&format!("-n {name} addr add {address} dev eth0"));
    ip(&format!("-n {name} link set eth0 up"));
    while !ip(&format!("link show {port}")).contains("state UP") {
        thread::yield_now();
    }
}

fn index_of(arguments: &str) -> IfIndex {
    IfIndex::new(ip(arguments).split_once(':').unwrap().0.parse().unwrap()).unwrap()
}

/// What `work` makes inside the sandbox: a socket stays there.
fn inside<T: Send + 'static>(sandbox: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let netns = File::open(format!("/run/netns/{sandbox}")).unwrap();
    let within = thread::spawn(move || {
        setns(netns, CloneFlags::CLONE_NEWNET).unwrap();
        work()
    });
    within.join().unwrap()
}

/// A TCP connection from `from`, by a socket of IPv4 or one of IPv6 that talks IPv4.
fn connected(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let tcp = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&tcp, &SocketAddrV4::new(from, 0)).unwrap();
    connect(&tcp, &to).unwrap();
    TcpStream::from(tcp)
}

fn connected_by_ipv6(from: Ipv4Addr, port: u16) -> TcpStream {
    let tcp: OwnedFd = socket(AddressFamily::INET6, SocketType::STREAM, None).unwrap();
    bind(&tcp, &SocketAddrV6::new(from.to_ipv6_mapped(), 0, 0, 0)).unwrap();
    connect(&tcp, &SocketAddrV6::new(HOST.to_ipv6_mapped(), port, 0, 0)).unwrap();
    TcpStream::from(tcp)
}

/// What a read that waits already comes to.
fn read_of(mut stream: TcpStream) -> mpsc::Receiver<io::Result<usize>> {
    let (done, result) = mpsc::channel();
    thread::spawn(move || done.send(stream.read(&mut [0; 8])));
    result
}

fn come_to(read: &mpsc::Receiver<io::Result<usize>>) -> ErrorKind {
    read.recv_timeout(Duration::from_secs(10)).expect("the read still waits").unwrap_err().kind()
}

/// Whether what is written at one end is read at the other.
fn carries(mut from: &TcpStream, mut to: &TcpStream) -> bool {
    to.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut heard = [0; 4];
    from.write_all(b"well").unwrap();
    to.read_exact(&mut heard).unwrap();
    heard == *b"well"
}

#[test]
fn clients_of_the_old_address_are_told_at_once_and_nobody_else() {
    on_a_runner(|| async {
        make_bridge();
        make_sandbox("blue", "veth1", "10.8.64.2/24");
        ip("-n blue addr add 10.8.64.20/24 dev eth0");
        let server = TcpListener::bind((HOST, 0)).unwrap();
        let (port, to) = (server.local_addr().unwrap().port(), server.local_addr().unwrap());
        let (client, by_ipv6, other) =
            inside("blue", move || (connected(OLD, to), connected_by_ipv6(OLD, port), connected(OTHER, to)));
        let accepted: Vec<_> = (0..3).map(|_| server.accept().unwrap().0).collect();

        // A server in the sandbox, on every address, with a connection to the old one; one on the old address alone.
        let (everywhere, on_old) =
            inside("blue", || (TcpListener::bind("[::]:0").unwrap(), TcpListener::bind((OLD, 0)).unwrap()));
        let listens_at = everywhere.local_addr().unwrap().port();
        let outside = TcpStream::connect((OLD, listens_at)).unwrap();
        let (served, _) = everywhere.accept().unwrap();

        let udp_server = UdpSocket::bind((HOST, 0)).unwrap();
        let udp_to = udp_server.local_addr().unwrap();
        let udp = move |from: Ipv4Addr| {
            let udp = UdpSocket::bind((from, 0)).unwrap();
            udp.connect(udp_to).unwrap();
            udp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            udp
        };
        let (udp_client, udp_other, _udp_on_old) =
            inside("blue", move || (udp(OLD), udp(OTHER), UdpSocket::bind((OLD, 0)).unwrap()));

        let reads = [client, by_ipv6, served].map(read_of);
        let blue = NetnsFile::open(Path::new("/run/netns/blue")).unwrap();
        let eth0 = index_of("-n blue -o link show eth0");
        readdress(&blue, eth0, Readdress { old: OLD, new: NEW, prefix_len: 24 }).await.unwrap();
        let done = destroy_sockets(&blue, OLD).await.unwrap();
        assert_eq!(done, Destroyed { tcp: Some(3), udp: Some(1), listeners_left: 2 });
        assert_eq!(reads.each_ref().map(come_to), [ErrorKind::ConnectionAborted; 3]);
        assert_eq!(udp_client.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionAborted);

        // The old address's new owner would be blamed for whatever else was said in its name.
        outside.set_nonblocking(true).unwrap();
        accepted[0].set_nonblocking(true).unwrap();
        for mut peer in [&outside, &accepted[0]] {
            assert_eq!(peer.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
        }
        assert!(carries(&other, &accepted[2]) && carries(&accepted[2], &other));
        udp_other.send(b"well").unwrap();
        let (len, from) = udp_server.recv_from(&mut [0; 8]).unwrap();
        assert_eq!((len, from.ip()), (4, OTHER.into()));
        let again = TcpStream::connect((NEW, listens_at)).unwrap();
        let (served, _) = everywhere.accept().unwrap();
        assert!(carries(&again, &served));
        assert_eq!(on_old.local_addr().unwrap().ip(), OLD);

        let nothing = Destroyed { tcp: Some(0), udp: Some(0), listeners_left: 2 };
        assert_eq!(destroy_sockets(&blue, OLD).await.unwrap(), nothing);
    });
}

/// The connections that a sandbox has begun (`proc_pid_net(5)`).
fn begun_in_blue() -> usize {
    let table = inside("blue", || fs::read_to_string("/proc/thread-self/net/tcp").unwrap());
    table.lines().filter(|line| line.split_whitespace().nth(3) == Some("02")).count()
}

#[test]
fn a_connection_that_is_still_being_made_is_given_up() {
    on_a_runner(|| async {
        make_bridge();
        make_sandbox("blue", "veth1", "10.8.64.2/24");
        // Its hardware address is nobody's: nothing ever comes back.
        ip("-n blue neigh add 10.8.64.77 lladdr 02:00:00:00:00:77 dev eth0 nud permanent");
        let (begun, has_begun) = mpsc::channel();
        let connecting = thread::spawn(move || {
            inside("blue", move || {
                let tcp = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
                bind(&tcp, &SocketAddrV4::new(OLD, 0)).unwrap();
                begun.send(()).unwrap();
                connect(&tcp, &SocketAddrV4::new(Ipv4Addr::new(10, 8, 64, 77), 80)).unwrap_err()
            })
        });
        has_begun.recv().unwrap();
        while begun_in_blue() == 0 {
            assert!(!connecting.is_finished());
            thread::yield_now();
        }
        let blue = NetnsFile::open(Path::new("/run/netns/blue")).unwrap();
        assert_eq!(destroy_sockets(&blue, OLD).await.unwrap().tcp, Some(1));
        assert_eq!(connecting.join().unwrap(), rustix::io::Errno::CONNABORTED);
    });
}

/// What `bridge fdb` says of a hardware address.
fn fdb(mac: Mac) -> String {
    let output = Command::new("bridge").args(["fdb", "show", "br", "rt0"]).output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    let line = table.lines().find(|line| line.starts_with(&mac.to_string())).unwrap_or_default();
    line.split(&mac.to_string()).last().unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_bridge_sends_to_the_right_one_of_two_ports_with_one_hardware_address() {
    on_a_runner(|| async {
        make_bridge();
        make_sandbox("blue", "veth1", "10.8.64.2/24");
        make_sandbox("green", "veth2", "10.8.64.2/24");
        let mac = Mac([2, 0, 0, 0, 0, 0x77]);
        for sandbox in ["blue", "green"] {
            ip(&format!("-n {sandbox} link set eth0 address {mac}"));
        }
        let index = |name: &str| index_of(&format!("-o link show {name}"));
        let (rt0, veth1, veth2) = (index("rt0"), index("veth1"), index("veth2"));
        let says = |sandbox: &str| {
            inside(sandbox, move || UdpSocket::bind((OLD, 0)).unwrap().send_to(b"me", (HOST, 9)).unwrap());
        };
        let mut host = Host::open().unwrap();
        assert!(host.correct_fdb(rt0, veth1, mac, None).await.unwrap(), "the bridge knew it before anybody spoke");
        assert_eq!(fdb(mac), "dev veth1 master rt0");

        says("green");
        assert_eq!(fdb(mac), "dev veth2 master rt0");
        assert!(host.correct_fdb(rt0, veth1, mac, None).await.unwrap());
        assert_eq!(fdb(mac), "dev veth1 master rt0");
        assert!(!host.correct_fdb(rt0, veth1, mac, None).await.unwrap());
        // It is no entry for ever: the bridge goes on to learn.
        says("green");
        assert_eq!(fdb(mac), "dev veth2 master rt0");
        assert!(!host.correct_fdb(rt0, veth2, mac, None).await.unwrap());

        for by_hand in ["static", "local"] {
            let set = format!("fdb replace {mac} dev veth2 master {by_hand}");
            assert!(Command::new("bridge").args(set.split(' ')).status().unwrap().success());
            let before = fdb(mac);
            assert!(!host.correct_fdb(rt0, veth1, mac, None).await.unwrap());
            assert_eq!(fdb(mac), before);
        }
        ip("link set veth1 nomaster");
        let no_port = host.correct_fdb(rt0, veth1, mac, None).await;
        assert!(matches!(no_port, Err(Error::NoInterface(index)) if index == veth1), "{no_port:?}");
        ip("link del veth2");
        assert!(matches!(host.correct_fdb(rt0, veth2, mac, None).await, Err(Error::NoInterface(_))));
    });
}

#[test]
fn the_hosts_neighbours_are_only_corrected_never_made_or_unmade() {
    on_a_runner(|| async {
        make_bridge();
        let (right, wrong) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
        let rt0 = index_of("-o link show rt0");
        let of = |last: u8| Ipv4Addr::new(10, 8, 64, last);
        for (last, state) in [(2, "permanent"), (3, "noarp"), (4, "stale"), (5, "failed")] {
            ip(&format!("neigh add {} lladdr {wrong} dev rt0 nud {state}", of(last)));
        }
        let entries = |last: u8| ip(&format!("neigh show {} dev rt0", of(last)));
        let before = [2, 3, 5, 6].map(entries);
        let mut host = Host::open().unwrap();
        let mut outcomes = Vec::new();
        for last in 2..=6 {
            outcomes.push(host.correct_neighbour(rt0, of(last), right).await.unwrap());
        }
        use HostNeighbour::{Replaced, Static, Unknown};
        assert_eq!(outcomes, [Static, Static, Replaced(wrong), Unknown, Unknown]);
        assert_eq!([2, 3, 5, 6].map(entries), before);
        assert!(entries(4).contains(&right.to_string()) && entries(6).is_empty());
    });
}

fn rt0() -> BridgeName {
    "rt0".parse().unwrap()
}

fn address() -> Ipv4Net {
    "10.8.64.77/24".parse().unwrap()
}

/// A sandbox to be thrown away, with the last part of its names.
async fn throwaway(last: &str, announce: bool) -> Result<Throwaway, Error> {
    let (name, port) = (format!("{THROWAWAY_PREFIX}{last}"), format!("drill{last}").parse().unwrap());
    Throwaway::make(rt0(), &name, port, address(), announce).await
}

async fn ports() -> Vec<PortSurvey> {
    let mut ports = Host::open().unwrap().survey(rt0()).await.unwrap().ports;
    ports.sort_by(|one, other| one.port.name.cmp(&other.port.name));
    ports
}

/// The names of namespaces and of the bridge's ports.
async fn names() -> (Vec<String>, Vec<String>) {
    let directory = fs::read_dir("/run/netns").into_iter().flatten();
    let mut netns: Vec<_> = directory.map(|name| name.unwrap().file_name().into_string().unwrap()).collect();
    netns.sort();
    (netns, ports().await.into_iter().map(|port| port.port.name).collect())
}

/// Hears what comes in at a bridge, and says who announced what.
struct Ear(OwnedFd);

impl Ear {
    fn open() -> Self {
        // ETH_P_ARP, in network byte order (`packet(7)`).
        let arp = RawProtocol::new(u32::from(0x0806_u16.to_be())).map(Protocol::from_raw);
        Self(socket(AddressFamily::PACKET, SocketType::RAW, arp).unwrap())
    }

    fn next(&self) -> ArpPacket {
        let mut frame = [0; 1514];
        let timeout = Some(Duration::from_secs(10));
        rustix::net::sockopt::set_socket_timeout(&self.0, rustix::net::sockopt::Timeout::Recv, timeout).unwrap();
        let (len, _) = rustix::net::recv(&self.0, &mut frame[..], rustix::net::RecvFlags::empty()).unwrap();
        ArpPacket::parse(frame.get(..len).unwrap()).unwrap()
    }
}

#[test]
fn a_sandbox_to_be_thrown_away_is_like_any_other_and_goes_without_a_trace() {
    on_a_runner(|| async {
        make_bridge();
        let before = names().await;
        let ear = Ear::open();
        let quiet = throwaway("1", false).await.unwrap();
        let loud = throwaway("2", true).await.unwrap();
        let heard = ear.next();
        // Of the first, which came before, there is no word.
        assert_eq!((heard.sender_mac, heard.sender), (loud.mac(), address().addr()));
        quiet.announce().await.unwrap();
        while ear.next().sender_mac != quiet.mac() {}

        let found = ports().await;
        assert_eq!(found.len(), 2);
        for (port, (name, mac)) in found.iter().zip([("1", quiet.mac()), ("2", loud.mac())]) {
            assert_eq!(port.port.name, format!("drill{name}"));
            let Inside::Seen(behind) = &port.inside else { panic!("{:?}", port.inside) };
            let live: Vec<_> = behind.live().map(|live| (live.network, live.mac)).collect();
            assert_eq!(live, [(address(), mac)]);
            let path = format!("/run/netns/{THROWAWAY_PREFIX}{name}");
            assert!(port.netns.as_ref().unwrap().paths.contains(&path.into()));
        }
        let answers = Command::new("ping").args(["-c1", "-W5", "10.8.64.77"]).output().unwrap();
        assert!(answers.status.success());

        quiet.remove().await.unwrap();
        let left = names().await;
        assert_eq!((left.0.len(), left.1.len()), (before.0.len() + 1, 1));
        drop(loud);
        assert_eq!(names().await.0, before.0);
        while !names().await.1.is_empty() {
            thread::yield_now();
        }
    });
}

#[test]
fn what_a_killed_drill_left_goes_and_nothing_else() {
    on_a_runner(|| async {
        assert_eq!(Throwaway::remove_leftovers().await.unwrap(), Vec::<String>::new());
        make_bridge();
        make_sandbox("blue", "veth1", "10.8.64.2/24");
        make_sandbox("dupip-drill", "veth2", "10.8.64.3/24");
        let others = names().await;
        for last in ["1", "2"] {
            std::mem::forget(throwaway(last, false).await.unwrap());
        }
        fs::write(format!("/run/netns/{THROWAWAY_PREFIX}3"), "").unwrap();
        assert_eq!(names().await.1.len(), 4);
        let mut removed = Throwaway::remove_leftovers().await.unwrap();
        removed.sort();
        assert_eq!(removed, ["1", "2", "3"].map(|last| format!("{THROWAWAY_PREFIX}{last}")));
        assert_eq!(names().await, others);
    });
}

#[test]
fn a_sandbox_that_cannot_be_made_leaves_nothing_behind_and_touches_nothing() {
    on_a_runner(|| async {
        assert!(matches!(throwaway("1", false).await, Err(Error::NoBridge(_))));
        assert!(Throwaway::remove_leftovers().await.unwrap().is_empty());
        make_bridge();
        make_sandbox("blue", "veth1", "10.8.64.2/24");
        for name in ["blue", "green", "../netns/blue", "dupip-drill-/../blue"] {
            let refused = Throwaway::make(rt0(), name, "drill".parse().unwrap(), address(), false).await;
            assert!(matches!(refused, Err(Error::Throwaway { .. })), "{name}");
        }
        let first = throwaway("1", false).await.unwrap();
        let all = names().await;
        let again = throwaway("1", false).await.unwrap_err();
        assert!(again.to_string().contains("/run/netns/dupip-drill-1: File exists"), "{again}");
        let same_port = Throwaway::make(rt0(), "dupip-drill-2", "drill1".parse().unwrap(), address(), false).await;
        assert_eq!(same_port.unwrap_err().errno(), Some(rustix::io::Errno::EXIST));
        assert_eq!(names().await, all);
        first.remove().await.unwrap();
    });
}
