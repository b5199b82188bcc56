//! What is kept over an end.

use std::{fs, os::unix::fs::PermissionsExt as _};

use tokio::runtime;

use super::{
    super::*,
    fixture::{Did, Lab, message, over, read, settings, shell, stopped},
};

fn pending(sequence: u64, hook: &str, occasion: &str) -> Pending {
    Pending { sequence, hook: hook.parse::<Hook>().unwrap().target.key(), message: message(7, occasion) }
}

#[test]
fn what_is_kept_is_found_in_order_and_forgotten_once() {
    let lab = Lab::new();
    let spool = lab.spool();
    assert_eq!(spool.pending(8).unwrap(), Kept::default());
    let all = [(2, "resolved"), (1, "opened"), (10, "failed")].map(|(at, what)| pending(at, "opened=/bin/true", what));
    all.iter().for_each(|pending| spool.keep(pending).unwrap());
    let mode = fs::metadata(lab.path("hooks")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let kept = spool.pending(2).unwrap();
    let occasions: Vec<_> = kept.pending.iter().map(|pending| pending.message.occasion()).collect();
    assert_eq!((occasions, kept.left), (vec![Occasion::Opened, Occasion::Resolved], 1));
    for pending in &all {
        spool.forget(pending).unwrap();
        spool.forget(pending).unwrap();
    }
    assert_eq!(spool.pending(8).unwrap(), Kept::default());
}

#[test]
fn what_cannot_be_read_is_set_aside() {
    let lab = Lab::new();
    let (spool, folder) = (lab.spool(), lab.path("hooks"));
    spool.keep(&pending(1, "opened=/bin/true", "opened")).unwrap();
    let whole = fs::read(folder.join(&lab.kept()[0])).unwrap();
    fs::write(folder.join("0-cut.json"), &whole[..whole.len() / 2]).unwrap();
    // A message under another's name could never be forgotten.
    fs::write(folder.join("0-other.json"), &whole).unwrap();
    fs::write(folder.join("0-huge.json"), vec![b' '; 100_000]).unwrap();
    fs::write(folder.join(".new-unfinished"), "").unwrap();
    let kept = spool.pending(8).unwrap();
    assert_eq!((kept.pending.len(), kept.damaged.len()), (1, 3));
    assert_eq!(spool.pending(8).unwrap().damaged, Vec::<String>::new());
    let names = lab.kept();
    assert_eq!(names.len(), 4);
    assert_eq!(names.iter().filter(|name| name.ends_with(".json.damaged")).count(), 3);
}

#[test]
fn what_a_killed_agent_had_to_tell_is_told_by_the_next() {
    let lab = Lab::new();
    let (begun, opened, resolved) = (lab.fifo("begun"), lab.fifo("opened"), lab.fifo("resolved"));
    let script = format!(
        "if [ -e {0} ]; then rm {0}; echo x > {1}; sleep 1000; else cat > {2}/$DUPIP_OCCASION; fi",
        lab.path("first").display(),
        begun.display(),
        lab.path("").display()
    );
    fs::write(lab.path("first"), "").unwrap();
    let hook = shell("opened,resolved", &script);

    let killed = runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    killed.block_on(async {
        let (hooks, mut done) = lab.start(settings(std::slice::from_ref(&hook)));
        hooks.tell(&message(7, "opened"));
        hooks.tell(&message(7, "resolved"));
        // Both are on disk.
        for _ in 0..2 {
            assert!(matches!(done.recv().await, Some(Did::Keep(_))));
        }
        read(begun).await;
        std::mem::forget(hooks);
    });
    killed.shutdown_background();
    assert_eq!(lab.kept().len(), 2);

    let next = runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    next.block_on(async {
        let (hooks, mut done) = lab.start(settings(&[hook]));
        assert_eq!(read(opened).await.as_bytes(), message(7, "opened").to_json());
        assert_eq!(read(resolved).await.as_bytes(), message(7, "resolved").to_json());
        over(&mut done, "7-resolved-1").await;
        stopped(hooks).await;
    });
    assert_eq!(lab.kept(), Vec::<String>::new());
    assert_eq!((lab.count("opened", "delivered"), lab.count("resolved", "delivered")), (1, 1));
}

#[tokio::test]
async fn what_is_for_nobody_any_more_or_damaged_is_told_to_people() {
    let lab = Lab::new();
    let spool = lab.spool();
    spool.keep(&pending(1, "opened=/bin/true", "opened")).unwrap();
    fs::write(lab.path("hooks").join("0-cut.json"), "{").unwrap();
    let (_hooks, mut done) = lab.start(settings(&[]));
    over(&mut done, "7-opened-1").await;
    assert_eq!(lab.count("opened", "dropped"), 1);
    assert_eq!(lab.kept(), ["0-cut.json.damaged"]);
    let told = lab.telemetry.events().read(&crate::telemetry::Asked { limit: 9, ..Default::default() }).unwrap();
    let told: Vec<_> = told.events.iter().map(|entry| entry.event.message.clone()).collect();
    assert!(told[0].ends_with("0-cut.json.damaged") && told[1].contains("not configured any more"), "{told:?}");
}
