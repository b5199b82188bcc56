//! Every log line in the sources is in the table, as the table has it, and the page for operators says the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{TokenStream, TokenTree};

use super::{LINES, Line, REPEATED};
use crate::telemetry::Kind;

/// One call of a macro that logs.
#[derive(Debug)]
struct Call {
    place: String,
    level: String,
    /// Field names, and the event's name if that is written there.
    fields: BTreeMap<String, Option<String>>,
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let is_source = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.ends_with(".rs") && !name.ends_with("tests.rs")
    };
    let folders = folders.iter().filter(|folder| !folder.ends_with("tests"));
    files.into_iter().filter(is_source).chain(folders.flat_map(|folder| sources(folder))).collect()
}

fn calls(file: &Path, tokens: TokenStream) -> Vec<Call> {
    let tokens: Vec<_> = tokens.into_iter().collect();
    let mut found = Vec::new();
    for at in 0..tokens.len() {
        match &tokens[at..] {
            [TokenTree::Ident(name), TokenTree::Punct(bang), TokenTree::Group(group), ..]
                if bang.as_char() == '!' && is_level(&name.to_string()) =>
            {
                let place = format!("{}:{}", file.display(), name.span().start().line);
                found.push(Call { place, level: name.to_string().to_uppercase(), fields: fields(group.stream()) });
            }
            [TokenTree::Group(group), ..] => found.extend(calls(file, group.stream())),
            _ => {}
        }
    }
    found
}

fn is_level(name: &str) -> bool {
    ["trace", "debug", "info", "warn", "error"].contains(&name)
}

/// What stands between commas: `name = value`, `name`, `%name` or `?name`; the words of the message are none.
fn fields(tokens: TokenStream) -> BTreeMap<String, Option<String>> {
    let tokens: Vec<_> = tokens.into_iter().collect();
    let is_comma = |token: &TokenTree| matches!(token, TokenTree::Punct(comma) if comma.as_char() == ',');
    let mut found = BTreeMap::new();
    for field in tokens.split(is_comma) {
        let field = match field {
            [TokenTree::Punct(how), rest @ ..] if "%?".contains(how.as_char()) => rest,
            field => field,
        };
        match field {
            [TokenTree::Ident(name)] => found.insert(name.to_string(), None),
            [TokenTree::Ident(name), TokenTree::Punct(is), value @ ..] if is.as_char() == '=' => {
                let text = value.first().map(|value| value.to_string().trim_matches('"').to_owned());
                found.insert(name.to_string(), text.filter(|_| value.len() == 1))
            }
            // The message, and what is put into it.
            _ => break,
        };
    }
    found
}

fn all_calls() -> Vec<Call> {
    let house = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let read = |file: PathBuf| {
        let text = fs::read_to_string(&file).unwrap();
        // What stands below is for tests.
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap().to_owned();
        calls(&file, code.parse().unwrap())
    };
    sources(&house).into_iter().flat_map(read).collect()
}

fn named(name: &str) -> Option<&'static Line> {
    LINES.iter().find(|line| line.name == name)
}

#[test]
fn every_line_in_the_sources_is_in_the_table() {
    let (mut wrong, mut used) = (Vec::new(), BTreeSet::new());
    // The lines of kinds are written in one place, by their kind.
    let (of_kinds, calls): (Vec<_>, Vec<_>) = all_calls().into_iter().partition(|call| call.place.contains("/tell.rs"));
    assert!(of_kinds.is_empty() && calls.len() > 30, "the sources are read: {calls:#?}");
    for Call { place, level, fields } in calls {
        let Some(Some(name)) = fields.get("event") else {
            wrong.push(format!("{place}: a line without `event = \"name\"`"));
            continue;
        };
        let Some(line) = named(name) else {
            wrong.push(format!("{place}: event `{name}` is not in LINES of telemetry/lines.rs"));
            continue;
        };
        used.insert(line.name);
        if line.level.as_str() != level {
            wrong.push(format!("{place}: `{name}` is of level {}", line.level));
        }
        let unknown = fields.keys().filter(|field| *field != "event" && !line.fields.contains(&field.as_str()));
        wrong.extend(unknown.map(|field| format!("{place}: `{name}` has no field `{field}` in LINES")));
    }
    let kinds: BTreeSet<_> = Kind::ALL.map(Kind::as_str).into();
    let unused = LINES.iter().filter(|line| !kinds.contains(line.name) && !used.contains(line.name));
    wrong.extend(unused.map(|line| format!("`{}` is in LINES and nobody logs it", line.name)));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_kind_has_one_line_and_names_stay_apart() {
    let (of_kinds, others) = LINES.split_at(Kind::ALL.len());
    let names: Vec<_> = of_kinds.iter().map(|line| line.name).collect();
    assert_eq!(names, Kind::ALL.map(Kind::as_str));
    assert!(others.is_sorted_by_key(|line| line.name), "by name");
    let all: BTreeSet<_> = LINES.iter().map(|line| line.name).collect();
    assert_eq!(all.len(), LINES.len());
    let reads = |line: &&Line| line.meaning.ends_with('.') && !line.remedy.is_empty() && !line.remedy.ends_with('.');
    assert_eq!(LINES.iter().find(|line| !reads(line)), None);
}

fn page() -> String {
    let row = |line: &Line| {
        let fields: Vec<_> = line.fields.iter().map(|field| format!("`{field}`")).collect();
        let Line { name, level, meaning, remedy, .. } = line;
        format!("| `{name}` | {} | {} | {meaning} | {remedy} |\n", level.as_str().to_lowercase(), fields.join(", "))
    };
    let table = |lines: &[Line]| {
        let head = "| event | level | fields | what it means | what to do |\n|---|---|---|---|---|\n";
        lines.iter().map(row).fold(head.to_owned(), |page, row| page + &row)
    };
    let (of_kinds, others) = LINES.split_at(Kind::ALL.len());
    let repeated = REPEATED.map(|field| format!("`{field}`")).join(" and ");
    format!(
        "# What dupip logs\n\n\
         One line for each event, on standard error, with its name in the field `event`; with `--log-format json` one object\n\
         for each line. Names stay. `--log` says how much: `info` (usual), `debug`, `warn`. At `info` no line is\n\
         written for each frame.\n\n\
         What is said again within a minute of the same thing (event, bridge and VLAN, port and address) is held back, and\n\
         told as one line with {repeated}; so are a port's lines of one event that are of more than 8 addresses in a minute.\n\
         Nothing that opens, changes or ends an incident is held back, and the events of `dupip events` and the metrics have\n\
         every one. A `domain` is a bridge, or `bridge.vlan`; `after_us` is in microseconds.\n\n\
         ## Events that `dupip events` has too\n\n{}\n\
         ## Others\n\n{}",
        table(of_kinds),
        table(others)
    )
}

#[test]
fn the_page_for_operators_says_what_the_table_says() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/events.md");
    if std::env::var_os("DUPIP_WRITE_PAGES").is_some() {
        fs::write(&file, page()).unwrap();
    }
    let there = fs::read_to_string(&file).unwrap();
    assert!(there == page(), "packaging/events.md is not what LINES says: run this test with DUPIP_WRITE_PAGES=1");
}
