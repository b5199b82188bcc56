//! What holds of a record, whatever stands in it.

use super::Record;

/// Of what should be a record: it is refused with words, or reads the same when it is written again; and an incident that
/// comes out of it comes out of its own record.
pub fn incident_record(bytes: &[u8]) {
    let record = match Record::from_json(&String::from_utf8_lossy(bytes)) {
        Ok(record) => record,
        Err(refusal) => return assert!(!refusal.to_string().is_empty()),
    };
    assert_eq!(Record::from_json(&record.to_json()).ok().as_ref(), Some(&record));
    match record.incident() {
        Ok(incident) => {
            let again = Record::of(&incident, &record.boot, record.wall_offset);
            assert_eq!(again.incident().ok(), Some(incident));
        }
        Err(refusal) => assert!(!refusal.to_string().is_empty()),
    }
}
