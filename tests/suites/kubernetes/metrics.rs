//! The example with its component: the agent acts by its file alone, and the real Prometheus scrapes it as the PodMonitor has
//! it, over TLS and with the token.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use lab::{Dupip, Pace, Prometheus, Runner};
use serde_json::{Map, Value, json};

use super::{
    manifests::{at, list, of, only},
    pod::{Pod, Secret},
    rights::{DATABASE, DEADLINE, incident},
};

const TOKEN: &str = "7c1f0e5a9b3d48620d4e6f8a1b2c3d4e";
/// A node by its address of either family, and what the node is called.
const NODES: [(&str, &str); 2] = [("10.8.64.1:9478", "node-4"), ("[::1]:9478", "node-6")];

/// What README.md has people make.
fn secrets() -> Result<BTreeMap<&'static str, Secret>> {
    let own = rcgen::generate_simple_self_signed(["dupip".to_owned()])?;
    let (certificate, key) = (own.cert.pem(), own.signing_key.serialize_pem());
    let tls = [("tls.crt", certificate.clone()), ("tls.key", key), ("ca.crt", certificate)];
    Ok([("dupip-tls", tls.into()), ("dupip-token", [("token", TOKEN.to_owned())].into())].into())
}

/// The text that the manifest at `pointer` refers to by a Secret's `name` and `key`.
fn referred<'a>(secrets: &'a BTreeMap<&str, Secret>, endpoint: &Value, pointer: &str) -> Result<&'a str> {
    let word = |name: &str| at(endpoint, &format!("{pointer}/{name}")).as_str().context(name.to_owned());
    let secret = secrets.get(word("name")?).context("no such Secret")?;
    Ok(secret.get(word("key")?).context("no such key")?)
}

/// Prometheus' own configuration of what the PodMonitor asks for, as the operator writes it. What it has from files is put
/// into `folder`.
fn write_config(folder: &Path, monitor: &Value, secrets: &BTreeMap<&str, Secret>) -> Result<()> {
    let endpoint = at(monitor, "/spec/podMetricsEndpoints/0");
    let file = |name: &str, pointer: &str| -> Result<String> {
        fs::write(folder.join(name), referred(secrets, endpoint, pointer)?)?;
        Ok(folder.join(name).display().to_string())
    };
    let named = |from: &str, to: &str| json!({ "source_labels": [format!("__meta_kubernetes_pod_{from}")], "target_label": to });
    let added = [named("name", "pod"), named("container_name", "container")];
    let rules = |pointer: &str| list(endpoint, pointer).iter().map(in_snake_case).collect::<Vec<_>>();
    let targets = NODES.map(|(address, node)| {
        let pod = format!("dupip-{node}");
        json!({ "targets": [address], "labels": {
            "__meta_kubernetes_pod_node_name": node,
            "__meta_kubernetes_pod_name": pod,
            "__meta_kubernetes_pod_container_name": "dupip",
        } })
    });
    let config = json!({ "scrape_configs": [{
        "job_name": "podMonitor/dupip/dupip/0",
        "scrape_interval": "250ms",
        "scrape_timeout": "250ms",
        "scheme": at(endpoint, "/scheme"),
        "metrics_path": at(endpoint, "/path"),
        "tls_config": {
            "server_name": at(endpoint, "/tlsConfig/serverName"),
            "ca_file": file("ca", "/tlsConfig/ca/secret")?,
        },
        "authorization": {
            "type": at(endpoint, "/authorization/type"),
            "credentials_file": file("credentials", "/authorization/credentials")?,
        },
        "static_configs": targets,
        "relabel_configs": added.into_iter().chain(rules("/relabelings")).collect::<Vec<_>>(),
        "metric_relabel_configs": rules("/metricRelabelings"),
    }] });
    Ok(fs::write(folder.join("prometheus.yml"), serde_json::to_string_pretty(&config)?)?)
}

/// The operator's fields are Prometheus' own, written otherwise.
fn in_snake_case(rule: &Value) -> Value {
    let snake = |name: &str| -> String {
        let sign =
            |sign: char| if sign.is_uppercase() { format!("_{}", sign.to_lowercase()) } else { sign.to_string() };
        name.chars().map(sign).collect()
    };
    let fields = rule.as_object().into_iter().flatten();
    fields.map(|(name, value)| (snake(name), value.clone())).collect::<Map<_, _>>().into()
}

/// The status of an answer to whoever says this token.
fn status(runner: &Runner, ca: &Path, token: Option<&str>) -> Result<String> {
    let curl = runner.command("curl").args(["--silent", "--max-time", "20", "--output", "/dev/null"]);
    let curl = curl.args(["--write-out", "%{http_code}", "--resolve", "dupip:9478:10.8.64.1", "--cacert"]).arg(ca);
    let header = token.map(|token| format!("Authorization: Bearer {token}"));
    curl.args(header.iter().flat_map(|header| ["--header", header])).arg("https://dupip:9478/metrics").run()
}

#[test]
fn the_example_heals_and_is_scraped_as_the_pod_monitor_has_it() -> Result<()> {
    let bridge = Runner::new()?.bridge("rt0", "10.8.64.1/24")?;
    let (runner, manifests, secrets) = (bridge.runner(), of("overlays/enforce")?, secrets()?);
    let dupip = Dupip::on(&bridge)?.keeping(DATABASE);
    let pod = Pod::new(runner, &manifests, dupip.program())?.with_secrets(secrets.clone());
    let [_sports, review] = bridge.duplicate(["sportsagent", "reviewagent"], "10.8.64.2/24")?;
    runner.run(["mkdir", "-p", "/run/lab/var/lib/dupip"])?;
    dupip.allocate("reviewagent")?;
    let mut agent = dupip.watching(pod.start(&[])?);
    agent.wait_ready()?;
    incident(&mut agent, "healed")?;
    assert_eq!(review.addresses()?, ["10.8.64.2/24"]);
    runner.run(["test", "-e", "/sys/fs/bpf/dupip/quarantine"])?;

    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    write_config(folder.path(), only(&manifests, "PodMonitor")?, &secrets)?;
    let ca = folder.path().join("ca");
    for (token, want) in [(None, "401"), (Some("another"), "401"), (Some(TOKEN), "200")] {
        assert_eq!(status(runner, &ca, token)?, want, "{token:?}");
    }
    let pace = Pace { every: Duration::from_millis(250), sooner: 1 };
    let mut prometheus = Prometheus::start(runner, folder.path(), pace)?;
    let all_up = |prometheus: &mut Prometheus| {
        let up = prometheus.query("duplicate_ip_total{bridge=\"rt0\"} == 1 and on (instance) up == 1")?;
        Ok((up.len() == NODES.len()).then_some(up))
    };
    let scraped = prometheus.wait(DEADLINE, "both addresses to be scraped", all_up)?;
    for series in &scraped {
        let labels = at(series, "/metric").as_object().context("no labels")?;
        let names: Vec<_> = labels.keys().map(String::as_str).collect();
        assert_eq!(names, ["__name__", "bridge", "instance", "job"], "a rollout is to begin no new series");
        ensure!(labels["job"] == "dupip" && NODES.iter().any(|(_, node)| labels["instance"] == *node), "{labels:?}");
    }
    assert!(!prometheus.query("dupip_degraded{feature=\"store\"}")?.is_empty());
    assert!(prometheus.query("dupip_degraded{feature=\"kernel_log\"}")?.is_empty());
    Ok(())
}
