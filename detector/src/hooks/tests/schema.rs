//! Messages are what the JSON Schema says.

use serde_json::{Value, json};

use super::{super::*, fixture::message};

/// What in a value is not as the schema says, as far as this schema uses JSON Schema.
fn wrong(schema: &Value, root: &Value, value: &Value, at: &str) -> Vec<String> {
    let mut wrong_here = Vec::new();
    let mut check = |holds: bool, what: &str| {
        if !holds {
            wrong_here.push(format!("{at}: {value} breaks {what}"));
        }
    };
    for (word, rule) in schema.as_object().unwrap() {
        match word.as_str() {
            "type" => check(names(rule).any(|name| is_of_type(value, name)), "type"),
            "const" => check(value == rule, "const"),
            "enum" => check(rule.as_array().unwrap().contains(value), "enum"),
            "minimum" => check(value.as_u64().is_none_or(|number| number >= rule.as_u64().unwrap()), "minimum"),
            "maximum" => check(value.as_u64().is_none_or(|number| number <= rule.as_u64().unwrap()), "maximum"),
            "required" => check(names(rule).all(|name| value.get(name).is_some()), "required"),
            "format" => check(value.as_str().is_none_or(|text| has_format(text, rule.as_str().unwrap())), "format"),
            "anyOf" => {
                let any = rule.as_array().unwrap().iter().any(|of| wrong(of, root, value, at).is_empty());
                check(any, "anyOf");
            }
            "$ref" => {
                let place = rule.as_str().unwrap().strip_prefix('#').unwrap();
                wrong_here.extend(wrong(root.pointer(place).unwrap(), root, value, at));
                return wrong_here;
            }
            "properties" => {
                for (name, part) in value.as_object().into_iter().flatten() {
                    // What the schema does not name is what nobody has described.
                    match rule.get(name) {
                        Some(rule) => wrong_here.extend(wrong(rule, root, part, name)),
                        None => wrong_here.push(format!("{at}: {name} is not described")),
                    }
                }
                return [wrong_here, wrong(&without(schema, "properties"), root, value, at)].concat();
            }
            "$schema" | "title" | "description" | "$defs" | "pattern" => {}
            other => panic!("this test does not know `{other}`"),
        }
    }
    wrong_here
}

fn without(schema: &Value, word: &str) -> Value {
    let mut schema = schema.clone();
    schema.as_object_mut().unwrap().remove(word);
    schema
}

fn names(rule: &Value) -> impl Iterator<Item = &str> {
    let one = rule.as_str();
    one.into_iter().chain(rule.as_array().into_iter().flatten().map(|name| name.as_str().unwrap()))
}

fn is_of_type(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "string" => value.is_string(),
        "integer" => value.is_u64(),
        "null" => value.is_null(),
        other => panic!("this test does not know the type `{other}`"),
    }
}

fn has_format(text: &str, format: &str) -> bool {
    match format {
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "date-time" => humantime::parse_rfc3339(text).is_ok(),
        other => panic!("this test does not know the format `{other}`"),
    }
}

fn judged(value: &Value) -> Vec<String> {
    let schema: Value = serde_json::from_str(include_str!("../../../packaging/hook-v1.schema.json")).unwrap();
    wrong(&schema, &schema, value, "message")
}

fn sent(message: &Message) -> Value {
    serde_json::from_slice(&message.to_json()).unwrap()
}

#[test]
fn every_message_is_as_its_schema_says() {
    for occasion in Occasion::ALL {
        let full = message(7, occasion.as_str());
        let bare = Message {
            vlan: Some(7),
            old_address: None,
            new_address: None,
            generation: None,
            winner: None,
            loser: full.loser.clone().map(|party| PartyInfo { sandbox: None, netns: None, ..party }),
            reason: None,
            time: Message::time(std::time::UNIX_EPOCH),
            ..full.clone()
        };
        assert_eq!(judged(&sent(&full)), Vec::<String>::new());
        assert_eq!(judged(&sent(&bare)), Vec::<String>::new());
        let told = sent(&full);
        let told = [&told["schema"], &told["id"], &told["occasion"], &told["incident"]];
        let id = format!("7-{occasion}-1");
        assert_eq!(told, [&json!(SCHEMA), &json!(id), &json!(occasion.as_str()), &json!(7)]);
    }
}

#[test]
fn the_schema_refuses_what_is_no_message() {
    let spoilt = |name: &str, value: Value| {
        let mut message = sent(&message(7, "evicted"));
        message[name] = value;
        judged(&message).len()
    };
    for (name, value) in [
        ("schema", json!("dupip.hook/v2")),
        ("occasion", json!("healed")),
        ("address", json!("10.8.64")),
        ("vlan", json!(4095)),
        ("time", json!("yesterday")),
        ("winner", json!({"sandbox": null})),
        ("generation", json!("1")),
        ("more", json!(1)),
    ] {
        assert_eq!(spoilt(name, value), 1, "{name}");
    }
    let mut less = sent(&message(7, "evicted"));
    less.as_object_mut().unwrap().remove("loser");
    assert_eq!(judged(&less).len(), 1);
}
