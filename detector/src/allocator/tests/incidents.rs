//! Incidents and settings beside the leases.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use proptest::prelude::*;

use super::{
    faults::{fill, on_a_small_disk},
    processes::Partner,
    *,
};

/// Incident `number`, about 10.8.64.2.
fn incident(number: u64, is_open: bool) -> Kept {
    Kept {
        number,
        boot: "boot-1".to_owned(),
        domain: rt0(),
        address: ip(2),
        is_open,
        opened: UNIX_EPOCH + Duration::from_millis(1_764_150_000_123),
        record: format!(r#"{{"id":{number},"open":{is_open}}}"#),
    }
}

fn numbers(kept: &[Kept]) -> Vec<u64> {
    kept.iter().map(|kept| kept.number).collect()
}

#[test]
fn what_is_kept_is_found_again_by_its_number_and_in_order() {
    let home = Home::new();
    let store = home.open();
    assert_eq!((store.last_incident().unwrap(), store.kept(1).unwrap()), (0, None));
    let tagged = Kept { domain: Domain { vlan: VlanId::new(12), ..rt0() }, ..incident(2, true) };
    store.keep(&[incident(1, true), tagged.clone(), incident(3, false)]).unwrap();
    store.keep(&[incident(1, false)]).unwrap();
    drop(store);
    let store = home.open_in("boot-2");
    assert_eq!(store.kept(1).unwrap(), Some(incident(1, false)));
    assert_eq!(store.kept_open().unwrap(), [tagged]);
    assert_eq!(numbers(&store.kept_lately(2).unwrap()), [3, 2]);
    assert_eq!(numbers(&store.kept_lately(usize::MAX).unwrap()), [3, 2, 1]);
    assert_eq!((store.last_incident().unwrap(), store.kept(4).unwrap()), (3, None));
}

#[test]
fn a_batch_is_kept_as_one_or_not_at_all() {
    let home = Home::new();
    let store = home.open();
    let long = Kept { record: "x".repeat(LONGEST_RECORD + 1), ..incident(2, true) };
    let error = store.keep(&[incident(1, true), long.clone()]).unwrap_err();
    assert_eq!(error.to_string(), "the record of incident 2 is 262145 bytes long, and no more than 262144 are kept");
    assert_eq!(store.kept_lately(9).unwrap(), []);
    store.keep(&[Kept { record: "x".repeat(LONGEST_RECORD), ..long }]).unwrap();
    let forbidden = "CREATE TRIGGER no_nine BEFORE INSERT ON incident WHEN NEW.number = 9
        BEGIN SELECT RAISE(ABORT, 'not nine'); END";
    store.connection().execute_batch(forbidden).unwrap();
    let error = store.keep(&[incident(8, true), incident(2, false), incident(9, true)]).unwrap_err();
    assert!(error.to_string().contains("not nine"), "{error}");
    assert_eq!((numbers(&store.kept_lately(9).unwrap()), store.last_incident().unwrap()), (vec![2], 2));
    assert!(store.kept(2).unwrap().unwrap().is_open);
}

#[test]
fn one_that_is_over_goes_when_it_is_old_or_there_are_many_newer_ones_and_an_open_one_never() {
    let home = Home::in_memory();
    let store = home.open();
    let many: Vec<_> = (1..=KEPT as u64 + 10).map(|number| incident(number, number <= 5)).collect();
    store.keep(&many).unwrap();
    let left: Vec<_> = (1..=5).chain(11..=KEPT as u64 + 10).rev().collect();
    assert_eq!(numbers(&store.kept_lately(usize::MAX).unwrap()), left);

    let age = |days: u32, which: &str| {
        let sql = format!("UPDATE incident SET updated_ms = updated_ms - {days} * 86400000 WHERE {which}");
        store.connection().execute_batch(&sql).unwrap();
    };
    age(91, "number <= 20");
    age(89, "number BETWEEN 21 AND 30");
    store.keep(&[incident(3, true)]).unwrap();
    assert_eq!(store.kept_lately(usize::MAX).unwrap().len(), KEPT + 5, "it is looked at when one is over");
    store.keep(&[incident(4, false)]).unwrap();
    let left: Vec<_> = [1, 2, 3, 4, 5].into_iter().chain(21..=KEPT as u64 + 10).rev().collect();
    assert_eq!(numbers(&store.kept_lately(usize::MAX).unwrap()), left);
}

#[test]
fn a_number_that_was_let_go_does_not_come_again() {
    let home = Home::new();
    home.open().keep(&[incident(7, false), incident(12, false)]).unwrap();
    rusqlite::Connection::open(home.path()).unwrap().execute_batch("UPDATE incident SET updated_ms = 0").unwrap();
    home.open().keep(&[incident(3, false)]).unwrap();
    let store = home.open_in("boot-2");
    assert_eq!((numbers(&store.kept_lately(9).unwrap()), store.last_incident().unwrap()), (vec![3], 12));
}

#[test]
fn a_setting_lasts_until_it_is_taken_back() {
    let home = Home::new();
    let store = home.open();
    assert_eq!(store.setting("pause").unwrap(), None);
    store.set("pause", Some("until 5")).unwrap();
    store.set("pause", Some("until 6")).unwrap();
    assert_eq!(home.open().setting("pause").unwrap().as_deref(), Some("until 6"));
    store.set("pause", None).unwrap();
    store.set("pause", None).unwrap();
    assert_eq!(home.open().setting("pause").unwrap(), None);
    let error = store.set("x", Some(&"x".repeat(LONGEST_RECORD + 1))).unwrap_err();
    assert!(error.to_string().starts_with("the value of `x` is 262145 bytes long"), "{error}");
}

/// Scenario 49, for what is not a lease.
#[test]
fn on_a_full_disk_nothing_is_kept_and_that_is_said() {
    on_a_small_disk(2 << 20, |home| {
        let store = home.open();
        store.keep(&[incident(1, true)]).unwrap();
        let ballast = home.path().with_file_name("ballast");
        fill(&ballast);
        let long = Kept { record: "x".repeat(100_000), ..incident(2, true) };
        let errors = [store.keep(&[incident(1, false), long.clone()]), store.set("pause", Some(&long.record))];
        for error in errors.map(Result::unwrap_err) {
            assert!(error.to_string().contains("full"), "{error}");
        }
        assert_eq!(store.kept_lately(9).unwrap(), [incident(1, true)]);
        std::fs::remove_file(ballast).unwrap();
        store.keep(&[incident(1, false), long.clone()]).unwrap();
        assert_eq!(store.kept_lately(9).unwrap(), [long, incident(1, false)]);
    });
}

/// Keeps one pair after the other, and says each when it is kept.
fn keep_pairs(file: &Path, first: usize) {
    let store = SqliteStore::open(file, "partner", Clock::system().unwrap()).unwrap();
    for number in (first as u64..).step_by(2) {
        store.keep(&[incident(number, true), incident(number + 1, true)]).unwrap();
        processes::say(&number.to_string());
    }
}

/// Scenario 41: what is kept before a step is there after a death, whole, and so is what is kept with it.
#[test]
fn what_was_kept_before_kill_9_is_kept() {
    if let Some((file, first)) = processes::part() {
        return keep_pairs(&file, first);
    }
    let home = Home::new();
    let mut first = 1;
    for heard in [1, 2, 17] {
        let mut partner = Partner::with("incidents::what_was_kept_before_kill_9_is_kept", &home.path(), first, &[]);
        let mut said: Vec<_> = (0..heard).map(|_| partner.hear().unwrap()).collect();
        said.extend(partner.kill());
        let store = SqliteStore::open(&home.path(), "test", Clock::system().unwrap()).unwrap();
        let last = store.last_incident().unwrap();
        assert_eq!(last % 2, 0, "half of a pair was kept");
        assert!(said.last().unwrap().parse::<u64>().unwrap() < last, "{said:?} of {last}");
        assert!(store.kept_open().unwrap() == (1..=last).map(|number| incident(number, true)).collect::<Vec<_>>());
        first = usize::try_from(last).unwrap() + 1;
    }
}

/// What may become of incidents, in a row.
#[derive(Clone, Debug)]
enum Act {
    Keep(Vec<(u64, bool)>),
    Age(u64),
    Reopen,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => prop::collection::vec((1..40_u64, any::<bool>()), 0..4).prop_map(Act::Keep),
        1 => (1..40_u64).prop_map(Act::Age),
        1 => Just(Act::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Against a map and a highest number: nothing open is lost, nothing is there that should be gone, whatever is done.
    #[test]
    fn the_book_keeps_what_a_map_would(acts in prop::collection::vec(act(), 1..30)) {
        let home = Home::in_memory();
        let (mut store, mut highest) = (home.open(), 0);
        let mut model: BTreeMap<u64, (bool, bool)> = BTreeMap::new();
        for act in acts {
            match act {
                Act::Keep(batch) => {
                    store.keep(&batch.iter().map(|(number, open)| incident(*number, *open)).collect::<Vec<_>>()).unwrap();
                    model.extend(batch.iter().map(|(number, open)| (*number, (*open, false))));
                    highest = batch.iter().map(|(number, _)| *number).fold(highest, u64::max);
                    if batch.iter().any(|(_, open)| !open) {
                        model.retain(|_, (open, aged)| *open || !*aged);
                    }
                }
                Act::Age(upto) => {
                    let sql = format!("UPDATE incident SET updated_ms = 0 WHERE number <= {upto}");
                    store.connection().execute_batch(&sql).unwrap();
                    model.range_mut(..=upto).for_each(|(_, (_, aged))| *aged = true);
                }
                Act::Reopen => store = home.open(),
            }
            let open: Vec<_> = model.iter().filter(|(_, (open, _))| *open).map(|(number, _)| *number).collect();
            prop_assert_eq!(numbers(&store.kept_open().unwrap()), open);
            prop_assert_eq!(numbers(&store.kept_lately(99).unwrap()), model.keys().rev().copied().collect::<Vec<_>>());
            prop_assert_eq!(store.last_incident().unwrap(), highest);
        }
    }
}
