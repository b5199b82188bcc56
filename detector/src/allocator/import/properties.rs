//! What holds of a file of host-local's, whatever stands in it.

use super::{
    Word,
    host_local::{LONGEST, parse, text},
};

/// Of the file of an address: it is read to its end or told to be too long, and what it says, written again as host-local
/// writes it, says the same.
pub fn host_local(bytes: &[u8]) {
    let read = text(bytes);
    let is_text = bytes.len() as u64 <= LONGEST && str::from_utf8(bytes).is_ok();
    assert!(read.as_ref().is_ok_and(|read| read.is_ok() == is_text), "{read:?}");
    let word = read.into_iter().flatten().map(|text| parse(&text)).next();
    let Some(word) = word else { return };
    match &word {
        Word::Owner { owner, interface } => {
            let interface = interface.map(|name| format!("\r\n{name}")).unwrap_or_default();
            assert_eq!(parse(&format!("{owner}{interface}")), word);
        }
        Word::Unclear(why) => assert!(!why.is_empty()),
        other => assert!(matches!(other, Word::Owner { .. }), "host-local says nothing such: {other:?}"),
    }
}
