//! Incidents and settings beside the leases.

use std::time::{Duration, UNIX_EPOCH};

use super::*;

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
