//! What stays of a quarantine when the agent goes.

use std::{
    env, fs,
    future::pending,
    path::{Path, PathBuf},
};

use aya::{
    maps::{HashMap, MapData},
    programs::{SchedClassifier, TcAttachType, loaded_programs},
};
use detector::{
    capture::{CaptureError, Hook, KeepQuarantine, Listener, Loaded, Post, Side, Tap, TapSettings},
    net::IfIndex,
};
use detector_ebpf::{ARP_PROGRAM, GUARD_PROGRAM, MAX_QUARANTINE, PROGRAMS, QuarantineKey};
use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
use tempfile::TempDir;

use crate::{
    lab::*,
    life::{ROLE, kill, start_agent},
    quarantine::{Lan, all_are_dropped, contained, flood_while},
};

/// Where a child process of these tests keeps its quarantine.
const DIRECTORY: &str = "DUPIP_TEST_DIRECTORY";

/// A BPF file system that only this test has, and a directory on it that is not there yet.
struct Shelf {
    root: TempDir,
    directory: PathBuf,
}

impl Shelf {
    fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
        let root = tempfile::tempdir().unwrap();
        mount("bpf", root.path(), "bpf", MountFlags::empty(), None).unwrap();
        Self { directory: root.path().join("dupip"), root }
    }

    fn kept(&self) -> Vec<String> {
        names_in(&self.directory)
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        unmount(self.root.path(), UnmountFlags::DETACH).unwrap();
    }
}

fn names_in(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn keeping(hook: Hook, directory: &Path) -> TapSettings {
    let keep_quarantine = KeepQuarantine::Keep(directory.to_owned());
    TapSettings { hook, keep_quarantine, ..TapSettings::default() }
}

fn clearing(hook: Hook, directory: &Path) -> TapSettings {
    let keep_quarantine = KeepQuarantine::Clear(directory.to_owned());
    TapSettings { hook, keep_quarantine, ..TapSettings::default() }
}

/// An agent that taps two ports, and contains ADDRESS at the first.
fn begin(settings: &TapSettings, ports: [IfIndex; 2]) -> Loaded {
    let mut loaded = Tap::load(settings).unwrap();
    ports.iter().for_each(|port| loaded.tap.attach(*port, at(Side::Ingress)).unwrap());
    loaded.quarantine.contain(&contained(ports[0])).unwrap();
    loaded.tap.guard(ports[0], true).unwrap();
    loaded
}

/// What arrives of three claims at the first port, and one at the second.
fn arrived(lan: &mut Lan) -> Vec<u8> {
    let request = request().broadcast_frame(None);
    lan.arrive(&[("s1", 1, request.clone()), ("s1", 2, packet_from(ADDRESS)), ("s2", 3, request)])
}

/// The kernel's numbers of the programs at an interface, by TCX.
fn program_ids(interface: &str) -> Vec<u32> {
    let (_, programs) = SchedClassifier::query_tcx(interface, TcAttachType::Ingress).unwrap();
    programs.iter().map(|program| program.id()).collect()
}

/// How many taps run at an interface.
fn taps(interface: &str) -> usize {
    PROGRAMS.iter().map(|name| programs(interface, name)).sum()
}

async fn is_unloaded(ids: Vec<u32>) {
    until("the programs are gone", || {
        let loaded: Vec<_> = loaded_programs().flatten().map(|program| program.id()).collect();
        ids.iter().all(|id| !loaded.contains(id))
    })
    .await;
}

/// What a new agent does with what another has kept: it takes it over, and can end it.
async fn take_over(hook: Hook, lan: &mut Lan, shelf: &Shelf, dropped: u64) {
    let Loaded { mut tap, mut claims, mut quarantine, .. } = Tap::load(&keeping(hook, &shelf.directory)).unwrap();
    let entry = contained(lan.first);
    assert_eq!(quarantine.list().unwrap(), [(entry, dropped)]);
    assert_eq!(arrived(lan), [3], "nobody listens there yet");
    let old = program_ids("p1");
    [lan.first, lan.second].iter().for_each(|port| tap.attach(*port, at(Side::Ingress)).unwrap());
    assert_eq!((taps("p1"), programs("p1", GUARD_PROGRAM)), (1, 1));
    is_unloaded(old).await;
    assert_eq!(arrived(lan), [3]);
    let heard: Vec<_> = hear(&mut claims, 2).await.iter().map(|claim| claim.port).collect();
    assert_eq!(heard, [lan.first, lan.second]);
    assert_eq!(tap.counters(lan.first).unwrap().contained, 2);
    assert_eq!(quarantine.list().unwrap(), [(entry, dropped + 4)]);

    assert!(quarantine.release(&entry).unwrap());
    tap.guard(lan.first, false).unwrap();
    assert_eq!((arrived(lan), shelf.kept()), (vec![1, 2, 3], vec!["quarantine".to_owned()]));
    assert_eq!(programs("p1", ARP_PROGRAM), 1);
    let new = program_ids("p1");
    drop((tap, claims, quarantine));
    assert_eq!((taps("p1"), taps("p2"), shelf.directory.exists()), (0, 0, false));
    is_unloaded(new).await;
    assert_eq!(arrived(lan), [1, 2, 3]);
}

#[test]
fn what_is_contained_stays_so_when_the_agent_stops() {
    for hook in [Hook::Tcx, Hook::Clsact] {
        alone(async move || {
            let (mut lan, shelf) = (Lan::new(), Shelf::new());
            let loaded = begin(&keeping(hook, &shelf.directory), [lan.first, lan.second]);
            let link = format!("port-{}", lan.first);
            let kept = if hook == Hook::Tcx { vec![link, "quarantine".into()] } else { vec!["quarantine".into()] };
            assert_eq!(shelf.kept(), kept);
            assert_eq!(arrived(&mut lan), [3]);
            drop(loaded);
            assert_eq!((taps("p1"), taps("p2")), (1, 0));
            assert_eq!((arrived(&mut lan), shelf.kept()), (vec![3], kept));
            take_over(hook, &mut lan, &shelf, 4).await;
        });
    }
}

#[test]
fn what_is_contained_stays_so_when_the_agent_is_killed() {
    const TEST: &str = "kept::what_is_contained_stays_so_when_the_agent_is_killed";
    if let Ok(hook) = env::var(ROLE) {
        return agent(if hook == "clsact" { Hook::Clsact } else { Hook::Tcx });
    }
    for (hook, role) in [(Hook::Tcx, "tcx"), (Hook::Clsact, "clsact")] {
        alone(async move || {
            let (mut lan, shelf) = (Lan::new(), Shelf::new());
            kill(start_agent(TEST, role, &[(DIRECTORY, shelf.directory.as_os_str())]));
            until("what is not guarded is tapped no longer", || hook == Hook::Clsact || taps("p2") == 0).await;
            assert_eq!((arrived(&mut lan), taps("p1")), (vec![3], 1));
            take_over(hook, &mut lan, &shelf, 2).await;
        });
    }
}

/// Keeps a quarantine until it is killed.
fn agent(hook: Hook) {
    let directory = PathBuf::from(env::var_os(DIRECTORY).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let _loaded = begin(&keeping(hook, &directory), [index("p1"), index("p2")]);
        println!("tapping");
        pending::<()>().await;
    });
}

#[test]
fn an_agent_that_keeps_nothing_ends_what_was_kept() {
    for hook in [Hook::Tcx, Hook::Clsact] {
        alone(async move || {
            let (mut lan, shelf) = (Lan::new(), Shelf::new());
            let settings = clearing(hook, &shelf.directory);
            drop(Tap::load(&settings).unwrap());
            assert!(!shelf.directory.exists());
            let loaded = begin(&keeping(hook, &shelf.directory), [lan.first, lan.second]);
            drop(Tap::load(&settings).unwrap());
            assert_eq!(arrived(&mut lan), [3], "one that still runs keeps what it has");
            drop(loaded);

            drop(Tap::load(&TapSettings { hook, ..TapSettings::default() }).unwrap());
            assert_eq!(arrived(&mut lan), [3], "who was not told of the directory leaves it alone");
            let old = program_ids("p1");
            let Loaded { mut tap, quarantine, .. } = Tap::load(&settings).unwrap();
            assert_eq!((quarantine.len(), shelf.directory.exists()), (0, false));
            assert_eq!(arrived(&mut lan), [1, 2, 3]);
            tap.attach(lan.first, at(Side::Ingress)).unwrap();
            assert_eq!((taps("p1"), programs("p1", ARP_PROGRAM)), (1, 1));
            is_unloaded(old).await;
            drop(tap);
            assert_eq!(taps("p1"), 0);
        });
    }
}

#[test]
fn without_the_wish_to_keep_it_everything_ends_with_the_tap() {
    alone(async || {
        let mut lan = Lan::new();
        let loaded = begin(&TapSettings::default(), [lan.first, lan.second]);
        assert_eq!(arrived(&mut lan), [3]);
        let old = program_ids("p1");
        drop(loaded);
        assert_eq!((arrived(&mut lan), taps("p1")), (vec![1, 2, 3], 0));
        is_unloaded(old).await;
    });
}

#[test]
fn no_frame_slips_through_while_one_agent_takes_over_from_another() {
    for hook in [Hook::Tcx, Hook::Clsact] {
        alone(async move || {
            let (mut lan, shelf) = (Lan::new(), Shelf::new());
            let settings = TapSettings { rate: 1, ..keeping(hook, &shelf.directory) };
            let mut agent = Some(begin(&settings, [lan.first, lan.second]));
            let sent = flood_while(|| {
                for change in 1..=20 {
                    drop(agent.take());
                    let mut next = Tap::load(&settings).unwrap();
                    let post = Post { watch_ipv4: change % 2 == 1, ..at(Side::Ingress) };
                    next.tap.attach(lan.first, post).unwrap();
                    agent = Some(next);
                }
            });
            all_are_dropped(&agent.unwrap().quarantine, contained(lan.first), sent).await;
            assert_eq!(lan.arrive(&[("s2", 2, packet_from(ADDRESS))]), [2]);
        });
    }
}

/// What is kept speaks of an index, which may be another interface's by now.
#[test]
fn what_was_kept_for_a_port_that_is_gone_is_removed() {
    for hook in [Hook::Tcx, Hook::Clsact] {
        alone(async move || {
            let (port, next, last) = (wire("s1", "p1"), wire("s2", "p2"), wire("s3", "p3"));
            let shelf = Shelf::new();
            let Loaded { mut tap, mut quarantine, .. } = Tap::load(&keeping(hook, &shelf.directory)).unwrap();
            for port in [port, next, last] {
                tap.attach(port, at(Side::Ingress)).unwrap();
                quarantine.contain(&contained(port)).unwrap();
                tap.guard(port, true).unwrap();
            }
            drop((tap, quarantine));
            ip(&format!("link del p1\nlink del p2\nlink add p4 index {port} type veth peer name s4\n"));
            let Loaded { mut tap, mut quarantine, .. } = Tap::load(&keeping(hook, &shelf.directory)).unwrap();
            assert_eq!(quarantine.list().unwrap(), [(contained(last), 0)]);
            let kept = |link: bool| [link.then(|| format!("port-{last}")), Some("quarantine".to_owned())];
            let kept = |link| kept(link && hook == Hook::Tcx).into_iter().flatten().collect::<Vec<_>>();
            assert_eq!(shelf.kept(), kept(true));

            // A port that this agent does not tap is released all the same.
            quarantine.release_port(last).unwrap();
            assert_eq!(taps("p3"), 1);
            tap.guard(last, false).unwrap();
            assert_eq!((taps("p3"), shelf.kept()), (0, kept(false)));
            drop((tap, quarantine));
            assert!(!shelf.directory.exists());
        });
    }
}

/// The entry is made at once; who is killed before the link is kept has kept nothing, and nothing speaks for it.
#[test]
fn what_nothing_guards_is_not_taken_over() {
    alone(async || {
        let (port, shelf) = (wire("s1", "p1"), Shelf::new());
        let Loaded { mut tap, mut quarantine, .. } = Tap::load(&keeping(Hook::Tcx, &shelf.directory)).unwrap();
        tap.attach(port, at(Side::Ingress)).unwrap();
        quarantine.contain(&contained(port)).unwrap();
        fs::hard_link(shelf.directory.join("quarantine"), shelf.directory.join("other")).unwrap();
        drop((tap, quarantine));
        assert_eq!((taps("p1"), shelf.kept()), (0, vec!["other".to_owned()]));
        fs::rename(shelf.directory.join("other"), shelf.directory.join("quarantine")).unwrap();
        let Loaded { quarantine, .. } = Tap::load(&keeping(Hook::Tcx, &shelf.directory)).unwrap();
        assert!(quarantine.is_empty() && quarantine.list().unwrap().is_empty());
    });
}

fn refusal(settings: &TapSettings) -> (String, CaptureError) {
    let by_listener = Listener::start(settings).err().expect("there is no ear instead");
    let error = Tap::load(settings).err().expect("there is no tap");
    assert_eq!(by_listener.to_string(), error.to_string());
    (error.to_string(), error)
}

#[test]
fn where_nothing_can_be_kept_it_says_why() {
    alone(async || {
        let elsewhere = tempfile::tempdir().unwrap();
        let directory = elsewhere.path().join("dupip");
        let (text, error) = refusal(&keeping(Hook::Auto, &directory));
        assert!(matches!(error, CaptureError::NoBpfFileSystem { .. }), "{text}");
        assert!(text.contains(directory.to_str().unwrap()) && text.contains("mount -t bpf bpf /sys/fs/bpf"), "{text}");
        assert!(!directory.exists());
        drop(Tap::load(&clearing(Hook::Auto, elsewhere.path())).unwrap());

        let shelf = Shelf::new();
        let settings = keeping(Hook::Auto, &shelf.directory);
        let first = Tap::load(&settings).unwrap();
        let (text, error) = refusal(&settings);
        assert!(matches!(error, CaptureError::KeptByAnother { .. }) && text.contains("another dupip"), "{text}");
        drop(first);
        drop(Tap::load(&settings).unwrap());

        fs::create_dir(&shelf.directory).unwrap();
        let path = shelf.directory.join("quarantine");
        for pin in [|path: &Path| pin_map::<8>(MAX_QUARANTINE, path), |path: &Path| pin_map::<KEY>(7, path)] {
            pin(&path);
            let (text, error) = refusal(&settings);
            assert!(matches!(error, CaptureError::Incompatible { .. }), "{text}");
            assert!(text.contains(path.to_str().unwrap()), "{text}");
            fs::remove_file(&path).unwrap();
        }
        drop(Tap::load(&settings).unwrap());
    });
}

const KEY: usize = size_of::<QuarantineKey>();

fn pin_map<const KEY_SIZE: usize>(max_entries: u32, path: &Path) {
    HashMap::<MapData, [u8; KEY_SIZE], u64>::create(max_entries, 0).unwrap().pin(path).unwrap();
}
