//! What people see, kept in files beside the verbs: `UPDATE_EXPECT=1 cargo test -p detector cli::` writes them anew.

use super::{Listed, Look, Output, columns, csv};

/// A list in every form that there is. `␛` stands for the escape character.
pub(in crate::cli) fn forms<Row: Listed>(rows: &[Row]) -> String {
    let look = Look::piped(Output::Table);
    let shown = |name: &str, look: Look| (name.to_owned(), columns(Row::COLUMNS, rows, look));
    let forms = [
        shown("piped", look),
        shown("wide", Look { wide: true, ..look }),
        shown("no header", Look { header: false, ..look }),
        shown("colour", Look { colour: true, ..look }),
        shown("80 characters", Look { width: Some(80), ..look }),
        shown("40 characters, colour", Look { width: Some(40), colour: true, ..look }),
        ("csv".to_owned(), csv(rows, true).unwrap()),
        ("csv, no header".to_owned(), csv(rows, false).unwrap()),
        ("nothing".to_owned(), columns::<Row>(Row::COLUMNS, [], look)),
        ("nothing, no header".to_owned(), columns::<Row>(Row::COLUMNS, [], Look { header: false, ..look })),
    ];
    forms.map(|(name, text)| format!("--- {name}\n{}", visible(&text))).concat()
}

/// With what a terminal would not show.
pub(in crate::cli) fn visible(text: &str) -> String {
    text.replace('\u{1b}', "␛").replace('\r', "␍")
}
