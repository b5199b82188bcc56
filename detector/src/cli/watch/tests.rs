//! The screen, drawn where there is no terminal.

use expect_test::expect_file;
use ratatui::{Terminal, backend::TestBackend};
use serde_json::{from_value, json};

use super::{
    feed::{News, Picture},
    model::{Model, Next},
    screen::draw,
    *,
};
use crate::cli::{conflicts::tests::open, render::Listed as _, table::tests::rows};
use clap::{Args as _, FromArgMatches as _};
use crossterm::event::KeyCode;

fn list(flags: &[&str]) -> List<Row> {
    let command = List::<Row>::augment_args(clap::Command::new("table").no_binary_name(true));
    List::from_arg_matches(&command.get_matches_from(flags)).unwrap()
}

fn now() -> SystemTime {
    humantime::parse_rfc3339("2026-06-12T10:00:00Z").unwrap()
}

fn picture() -> Picture {
    let about = json!({"version": "1", "database": "/l.db", "mode": "observe", "bridges": ["rt0"], "waits_for": []});
    Picture {
        about: from_value(about).unwrap(),
        paused: from_value(json!({"paused": false, "until": null, "left_ms": null})).unwrap(),
        rows: rows(),
        incidents: vec![from_value(open()).unwrap()],
    }
}

fn press(model: &mut Model, keys: &str) {
    for key in keys.chars() {
        let code = if key == '\n' { KeyCode::Enter } else { KeyCode::Char(key) };
        assert_eq!(model.press(code.into()), Next::Go);
    }
}

fn drawn(model: &mut Model, columns: u16, rows: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    terminal.draw(|frame| draw(frame, model, true, now())).unwrap();
    terminal.backend().to_string()
}

#[test]
fn what_a_person_sees_is_kept() {
    let mut model = Model::new(picture(), &list(&["--sort", "address"]), now());
    let mut shown = vec![drawn(&mut model, 130, 10), drawn(&mut model, 60, 10)];
    press(&mut model, "/reserved");
    shown.push(drawn(&mut model, 130, 10));
    press(&mut model, "\n w");
    model.hear(News::Silent("cannot reach it".to_owned()), now());
    shown.push(drawn(&mut model, 170, 12));
    press(&mut model, "?");
    shown.push(drawn(&mut model, 100, 18));
    shown.push(drawn(&mut model, 3, 2));
    expect_file!["../golden/watch.txt"].assert_eq(&shown.join("\n"));
}

#[test]
fn what_came_while_it_was_held_still_is_as_old_as_it_is() {
    let mut model = Model::new(picture(), &list(&[]), now());
    press(&mut model, " ");
    let later = now() + Duration::from_secs(60);
    model.hear(News::Said(Box::new(picture())), later);
    model.hear(News::Silent("cannot reach it".to_owned()), later + Duration::from_secs(60));
    assert_eq!(model.said, now(), "it is held still");
    press(&mut model, " ");
    assert_eq!(model.said, later);
}

#[test]
fn as_many_rows_as_a_network_has_are_scrolled() {
    let mut many = picture();
    let quiet = rows().remove(0);
    many.rows.extend((0..65_536_u32).map(|host| Row { address: (0x0a09_0000 + host).into(), ..quiet.clone() }));
    let mut model = Model::new(many, &list(&["--filter", "address=10.9.0.0/16", "--sort", "-address"]), now());
    drawn(&mut model, 120, 30);
    assert_eq!((model.order.len(), model.top), (65_536, 0));
    let first = |model: &Model| model.visible().next().map(|row| row.address.to_string());
    assert_eq!(first(&model).as_deref(), Some("10.9.255.255"));
    press(&mut model, "G");
    assert_eq!((model.top + model.page, model.visible().count()), (65_536, model.page));
    press(&mut model, "kr");
    assert_eq!(model.top + model.page, 65_535);
    press(&mut model, "g");
    assert_eq!(first(&model).as_deref(), Some("10.9.0.0"));
    press(&mut model, "/10.9.77.7");
    assert_eq!(model.order.len(), 11, "10.9.77.7 and 10.9.77.70 to 79");
    assert_eq!(model.top, 0);
    assert_eq!(Row::COLUMNS.len(), model.widths.len());
}
