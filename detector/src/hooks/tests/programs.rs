//! Programs that are told.

use std::{fs, time::Duration};

use serde_json::Value;
use tokio::sync::oneshot;

use super::{
    super::*,
    fixture::{Broken, Did, Lab, message, over, read, settings, shell, stopped},
};
use crate::telemetry::{Asked, Kind};

#[tokio::test]
async fn a_program_is_told_on_its_standard_input() {
    let lab = Lab::new();
    let (fifo, environment) = (lab.fifo("told"), lab.path("environment"));
    let script = format!("env > {}; cat > {}", environment.display(), fifo.display());
    let (hooks, mut done) = lab.start(settings(&[shell("evicted,resolved", &script)]));
    let told = message(7, "evicted");
    hooks.tell(&told);
    // Nobody wants to hear of it.
    hooks.tell(&message(7, "opened"));
    assert_eq!(read(fifo).await.as_bytes(), told.to_json());
    over(&mut done, "7-evicted-1").await;
    let environment = fs::read_to_string(environment).unwrap();
    for line in
        ["DUPIP_OCCASION=evicted", "DUPIP_INCIDENT=7", "DUPIP_OLD_ADDRESS=10.8.64.2", "DUPIP_NEW_ADDRESS=10.8.64.4"]
    {
        assert!(environment.lines().any(|known| known == line), "{line} in {environment}");
    }
    assert_eq!((lab.count("evicted", "delivered"), lab.count("opened", "delivered")), (1, 0));
    assert_eq!(lab.kept(), Vec::<String>::new());
    stopped(hooks).await;
}

#[tokio::test]
async fn a_program_that_takes_too_long_is_killed_with_all_that_it_has_started() {
    let lab = Lab::new();
    let fifo = lab.fifo("held");
    let script = format!("exec 3> {}; sleep 1000 & echo started >&3; sleep 1000", fifo.display());
    let mut settings = settings(&[shell("opened", &script)]);
    settings.timeout = Duration::from_secs(1);
    let (hooks, _done) = lab.start(settings);
    hooks.tell(&message(7, "opened"));
    // All of them have the pipe open: it ends when the last of them is gone.
    assert_eq!(read(fifo).await, "started\n");
    stopped(hooks).await;
    assert!(lab.count("opened", "retried") >= 1);
    assert_eq!(lab.kept().len(), 1);
}

#[tokio::test]
async fn a_program_that_fails_is_told_again_until_it_does_not() {
    let lab = Lab::new();
    let tries = lab.path("tries");
    let script = format!("cat > /dev/null; echo x >> {0}; [ $(wc -l < {0}) = 3 ]", tries.display());
    let (hooks, mut done) = lab.start(settings(&[shell("opened", &script)]));
    hooks.tell(&message(7, "opened"));
    over(&mut done, "7-opened-1").await;
    assert_eq!((lab.count("opened", "retried"), lab.count("opened", "delivered")), (2, 1));
    assert_eq!(fs::read_to_string(tries).unwrap().lines().count(), 3);
}

#[tokio::test]
async fn a_program_is_given_up_after_so_many_attempts_and_told_of_again_when_it_works() {
    let lab = Lab::new();
    let works = lab.path("works");
    let (hooks, mut done) = lab.start(settings(&[shell("opened,failed", &format!("[ -e {} ]", works.display()))]));
    hooks.tell(&message(7, "opened"));
    over(&mut done, "7-opened-1").await;
    assert_eq!((lab.count("opened", "retried"), lab.count("opened", "failed")), (7, 1));
    assert!(lab.is_degraded());
    fs::write(works, "").unwrap();
    hooks.tell(&message(7, "failed"));
    over(&mut done, "7-failed-1").await;
    assert!(!lab.is_degraded());
}

#[tokio::test]
async fn a_hook_hears_of_an_incident_in_order() {
    let lab = Lab::new();
    let heard = lab.path("heard");
    // Fails the first time.
    let script = format!("cat > /dev/null; echo $DUPIP_OCCASION >> {0}; [ $(wc -l < {0}) != 1 ]", heard.display());
    let (hooks, mut done) = lab.start(settings(&[shell("opened,evicted,resolved", &script)]));
    for occasion in ["opened", "evicted", "resolved"] {
        hooks.tell(&message(7, occasion));
    }
    over(&mut done, "7-resolved-1").await;
    assert_eq!(fs::read_to_string(heard).unwrap(), "opened\nopened\nevicted\nresolved\n");
}

#[tokio::test]
async fn one_incident_does_not_wait_for_another() {
    let lab = Lab::new();
    let (gate, fifo) = (lab.fifo("gate"), lab.fifo("told"));
    let script = format!("case $DUPIP_INCIDENT in 1) read x < {};; *) cat > {};; esac", gate.display(), fifo.display());
    let (hooks, mut done) = lab.start(settings(&[shell("opened", &script)]));
    hooks.tell(&message(1, "opened"));
    hooks.tell(&message(2, "opened"));
    let told: Value = serde_json::from_str(&read(fifo).await).unwrap();
    assert_eq!(told["incident"], 2);
    tokio::task::spawn_blocking(|| fs::write(gate, "go\n").unwrap()).await.unwrap();
    over(&mut done, "1-opened-1").await;
}

#[tokio::test]
async fn more_than_may_wait_is_dropped_and_told() {
    let lab = Lab::new();
    let gate = lab.fifo("gate");
    let (hooks, _done) = lab.start_with(settings(&[shell("opened", &format!("cat {}", gate.display()))]), Broken);
    (0..1025).for_each(|incident| hooks.tell(&message(incident, "opened")));
    assert_eq!((lab.count("opened", "dropped"), lab.is_degraded()), (1, true));
}

#[tokio::test]
async fn a_broken_disk_keeps_nobody_from_being_told() {
    let lab = Lab::new();
    let (hooks, mut done) = lab.start_with(settings(&[shell("opened,failed", "true")]), Broken);
    hooks.tell(&message(7, "opened"));
    hooks.tell(&message(7, "failed"));
    for _ in 0..2 {
        while !matches!(done.recv().await.unwrap(), Did::Forget(_)) {}
    }
    assert_eq!((lab.count("opened", "delivered"), lab.count("failed", "delivered")), (1, 1));
    // Told once, and as long as it lasts.
    assert!(lab.is_degraded());
    let told = lab.telemetry.events().read(&Asked { limit: 9, ..Asked::default() }).unwrap();
    let told: Vec<_> = told.events.iter().map(|entry| entry.event.kind).collect();
    assert_eq!(told, [Kind::Degraded]);
}

async fn asked(hooks: &Hooks) -> Result<(), NotDone> {
    let (tell, answer) = oneshot::channel();
    hooks.ask(&message(7, "recycle"), move |done| tell.send(done).unwrap());
    answer.await.unwrap()
}

#[tokio::test]
async fn who_asks_hears_whether_all_have_done_it() {
    let lab = Lab::new();
    let (hooks, _done) = lab.start(settings(&[shell("opened", "true")]));
    let error = asked(&hooks).await.unwrap_err().to_string();
    assert_eq!(error, "no hook is configured for recycle; give --hook recycle=…");

    let (hooks, _done) = lab.start(settings(&[shell("recycle", "true"), shell("recycle", "exit 0")]));
    assert_eq!(asked(&hooks).await, Ok(()));
    // Whoever asks will ask again.
    assert_eq!(lab.kept(), Vec::<String>::new());

    let mut some = settings(&[shell("recycle", "true"), shell("recycle", "echo no such sandbox >&2; exit 3")]);
    some.patience.attempts = 2;
    let (hooks, _done) = lab.start(some);
    let error = asked(&hooks).await.unwrap_err().to_string();
    let want = "/bin/sh: ended with exit code 3; it said: no such sandbox (attempt 2, the last)";
    assert_eq!(error, want);
}

#[tokio::test]
async fn what_is_under_way_at_the_end_may_finish_and_the_rest_stays() {
    let lab = Lab::new();
    let (begun, gate) = (lab.fifo("begun"), lab.fifo("gate"));
    let heard = lab.path("heard");
    let script = format!(
        "echo $DUPIP_OCCASION >> {}; echo x > {}; read x < {}",
        heard.display(),
        begun.display(),
        gate.display()
    );
    let (hooks, _done) = lab.start(settings(&[shell("opened,resolved", &script)]));
    hooks.tell(&message(7, "opened"));
    hooks.tell(&message(7, "resolved"));
    read(begun).await;
    let stop = tokio::spawn(stopped(hooks));
    tokio::task::spawn_blocking(|| fs::write(gate, "go\n").unwrap()).await.unwrap();
    stop.await.unwrap();
    assert_eq!((lab.count("opened", "delivered"), fs::read_to_string(heard).unwrap()), (1, "opened\n".to_owned()));
    let [kept] = lab.kept().try_into().unwrap();
    assert!(kept.contains("-7-resolved-1-"), "{kept}");
}
