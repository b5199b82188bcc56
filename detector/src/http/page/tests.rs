//! What is written for a look, whatever is in it.

use std::net::Ipv4Addr;

use serde_json::json;

use super::*;
use crate::http::api::{Incident, Row};

fn row(port: u32, address: impl Into<Ipv4Addr>) -> Row {
    serde_json::from_value(json!({
        "bridge": "rt0", "vlan": null, "address": address.into(), "mac": format!("02:00:00:00:{:02x}:{:02x}", port >> 8, port & 255),
        "port": format!("veth{port}"), "ifindex": port, "netns": port, "sandbox": format!("agent{port}"), "host": false,
        "first_seen": "2026-11-26T12:00:00.000Z", "last_seen": "2026-11-26T12:00:01.000Z", "evidence": "configured",
        "state": "ok", "lease": null,
    }))
    .unwrap()
}

/// So many rows, each of a port of its own.
fn crowd(count: u32) -> Vec<Row> {
    (1..=count).map(|port| row(port, 0x0a08_0000 + port)).collect()
}

/// An open incident between those of the rows; the first keeps the address.
fn incident(id: u64, rows: &[&Row]) -> Incident {
    let parties: Vec<_> = rows
        .iter()
        .enumerate()
        .map(|(place, row)| {
            json!({
                "sandbox": row.sandbox, "port": row.port, "ifindex": row.ifindex, "mac": row.mac, "netns": row.netns,
                "host": row.host, "evidence": "configured", "first_seen": row.first_seen, "new_address": null,
                "role": if place == 0 { "winner" } else { "loser" },
            })
        })
        .collect();
    serde_json::from_value(json!({
        "id": id, "bridge": "rt0", "vlan": null, "address": rows[0].address, "addresses": [rows[0].address],
        "status": "open", "opened": "2026-11-26T12:00:00.000Z", "named_us": 40, "closed": null, "heal_ms": null,
        "first_evidence": "configured", "parties": parties, "reason": null, "settled": false, "healed": false,
        "held": null, "evictions": [],
    }))
    .unwrap()
}

fn page(look: &Look, find: &str, page: usize) -> String {
    written(look, &Wanted { find: find.to_owned(), page: Some(page) }).into_string()
}

#[test]
fn a_thousand_ports_are_shown_in_pages_with_what_is_wrong_first() {
    let rows = crowd(1000);
    let (one, other) = (&rows[990], &row(995, rows[990].address));
    let look = Look::of(rows.clone(), vec![incident(1, &[one, other])]);
    let first = page(&look, "", 1);
    for words in ["Ports 1 to 60 of 1000, what is wrong first", "href=\"/?page=2\"", "agent991", "agent995"] {
        assert!(first.contains(words), "no `{words}`");
    }
    assert!(first.len() < 250_000, "{} bytes", first.len());
    let last = page(&look, "", 99);
    assert!(last.contains("Ports 961 to 1000 of 1000") && !last.contains("rel=\"next\""));
    let found = page(&look, " AGENT77", 1);
    assert!(found.contains("of 11 ports") && found.contains("agent770") && !found.contains("agent1<"));
    assert!(page(&look, "nobody", 1).contains("Nothing here has “nobody” in its name"));
}

#[test]
fn a_port_with_thousands_of_addresses_and_a_crowd_on_one_address_are_bound() {
    let many: Vec<_> = (0..5000).map(|n| row(1, 0x0a08_0000 + n)).collect();
    let text = page(&Look::of(many, vec![]), "", 1);
    assert!(text.contains("and 4997 more addresses") && text.contains("and 4992 more addresses"));
    assert!(text.len() < 30_000, "{} bytes", text.len());

    let rows: Vec<_> = (1..=1000).map(|port| row(port, [10, 8, 0, 1])).collect();
    let look = Look::of(rows.clone(), vec![incident(1, &rows.iter().collect::<Vec<_>>())]);
    let text = page(&look, "", 1);
    assert!(text.contains("and 992 more") && text.len() < 300_000, "{} bytes", text.len());

    let contested = |id: u32| incident(id.into(), &[&row(1, 0x0a08_0000 + id), &row(2, 0x0a08_0000 + id)]);
    let incidents = (1..=300).map(contested);
    let text = page(&Look::of(vec![], incidents.collect()), "", 1);
    assert!(text.contains("And 280 more: ") && text.contains("and 294 more contests"), "{text}");
    assert!(text.len() < 100_000, "{} bytes", text.len());
}

#[test]
fn names_are_text_whatever_they_are() {
    let hostile = "\"><script>alert('\u{202e}1')</script>&amp;";
    let rows = vec![
        Row { sandbox: Some(hostile.to_owned()), ..row(1, [10, 8, 0, 1]) },
        Row { port: hostile.to_owned(), sandbox: None, ..row(2, [10, 8, 0, 1]) },
    ];
    let mut incident = incident(1, &[&rows[0], &rows[1]]);
    incident.held = Some(hostile.to_owned());
    incident.decision = Some(hostile.to_owned());
    let look = Look::of(rows, vec![incident]);
    let text = page(&look, "", 1);
    assert_eq!(text.matches("<script").count(), 1, "only the page's own: {text}");
    assert!(text.contains("&lt;script&gt;alert('\u{fffd}1')"), "{text}");
    assert!(text.contains("&amp;amp;") && !text.contains("\"\">"), "{text}");
    // Nor does what was looked for end the attribute that it stands in.
    let text = page(&look, hostile, 1);
    assert!(text.contains("value=\"&quot;&gt;&lt;script&gt;") && text.matches("<script").count() == 1, "{text}");
}

#[test]
fn those_who_contest_an_address_stand_side_by_side() {
    let rows = crowd(6);
    let incidents = vec![incident(7, &[&rows[5], &rows[1]]), incident(8, &[&rows[2], &rows[4], &rows[0]])];
    let look = Look::of(rows, incidents);
    let shown = ports::shown(&look, "", 1, PORTS);
    let ports: Vec<_> = shown.ports.iter().collect();
    let stand = |columns| {
        let rows = places::placed(&ports, columns);
        let names = |row: &places::Row<'_>| row.ports.iter().map(|port| port.ifindex).collect::<Vec<_>>();
        let ties = |row: &places::Row<'_>| row.ties.iter().map(|tie| tie.columns.clone()).collect::<Vec<_>>();
        rows.iter().map(|row| (names(row), ties(row))).collect::<Vec<_>>()
    };
    assert_eq!(stand(5), [(vec![2, 6, 1, 3, 5], vec![vec![0, 1], vec![2, 3, 4]]), (vec![4], vec![])]);
    assert_eq!(stand(4), [(vec![2, 6], vec![vec![0, 1]]), (vec![1, 3, 5, 4], vec![vec![0, 1, 2]])]);
    assert_eq!(
        stand(2),
        [(vec![2, 6], vec![vec![0, 1]]), (vec![1, 3], vec![vec![0, 1]]), (vec![5, 4], vec![vec![0]])],
        "a tie that has no room in one row goes on in the next"
    );
}
