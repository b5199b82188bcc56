//! What is written in the manifests and in the Dockerfile.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use lab::{Dupip, Runner};
use serde_json::{Value, json};

use super::{
    image::{assemble, build, entry_point, files, health_check, last_stage},
    manifests::{check, fed, list, of, only, packaging, program, rendered, text},
};

#[test]
fn the_base_and_the_example_are_as_their_schemas_want_them() -> Result<()> {
    let kinds =
        |folder: &str| -> Result<Vec<Value>> { Ok(of(folder)?.iter().map(|one| one["kind"].clone()).collect()) };
    assert_eq!(
        kinds("base")?,
        ["Namespace", "ResourceQuota", "ConfigMap", "DaemonSet"],
        "no rights in the API, and no service account"
    );
    assert_eq!(
        kinds("overlays/enforce")?,
        ["Namespace", "ResourceQuota", "ConfigMap", "DaemonSet", "PodMonitor", "PrometheusRule"],
        "what needs the Prometheus operator comes with the component only"
    );
    Ok(())
}

#[test]
fn what_a_schema_does_not_know_is_refused() -> Result<()> {
    const BROKEN: [(&str, &str, &str); 8] = [
        ("scopeSelector:", "scopeSelektor:", "ResourceQuota dupip: Kubernetes 1.37"),
        ("readOnlyRootFilesystem", "readOnlyRootFilesystm", "DaemonSet dupip: Kubernetes 1.37"),
        ("hostPID: true", "hostPID: \"true\"", "hostPID"),
        ("containerPort: 9478", "containerPort: https", "containerPort"),
        ("serverName: dupip", "servername: dupip", "podMetricsEndpoints[0].tlsConfig.servername is unknown"),
        ("interval: 15s", "interval: soon", "spec.podMetricsEndpoints.0.interval"),
        ("  groups:", "  group:", "PrometheusRule dupip: spec.group is unknown"),
        ("kind: PodMonitor", "kind: PodMonitr", "the Prometheus operator knows no such kind"),
    ];
    let yaml = rendered("overlays/enforce")?;
    let broken = BROKEN.map(|(right, wrong, _)| yaml.replacen(right, wrong, 1));
    for ((right, wrong, said), checked) in BROKEN.iter().zip(check(&broken)?) {
        assert!(yaml.contains(right), "{right}");
        assert!(checked.faults.iter().any(|fault| fault.contains(said)), "{wrong}: {:?}", checked.faults);
    }
    Ok(())
}

/// A pod that the kubelet cannot probe, or that is not let go from a node in trouble, is worth nothing.
#[test]
fn the_pod_is_where_sandboxes_are_and_is_asked_how_it_is() -> Result<()> {
    let manifests = of("base")?;
    let pod = only(&manifests, "DaemonSet")?.pointer("/spec/template/spec").context("no pod")?;
    assert_eq!(pod["tolerations"], json!([{ "operator": "Exists" }]));
    assert_eq!(pod["priorityClassName"], "system-node-critical");
    assert_eq!((&pod["hostNetwork"], &pod["automountServiceAccountToken"]), (&json!(true), &json!(false)));
    let container = &pod["containers"][0];
    for (probe, path) in [("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
        let want = json!({ "host": "127.0.0.1", "port": 9477, "path": path });
        assert_eq!(container[probe]["httpGet"], want, "without a certificate it answers on loopback only");
    }
    assert!(
        container.pointer("/resources/requests/cpu").is_some()
            && container.pointer("/resources/limits/memory").is_some()
    );
    Ok(())
}

/// Two agents on one node would be one another's second: the old one must go before the new one comes.
#[test]
fn a_tenth_of_the_agents_is_replaced_at_a_time() -> Result<()> {
    let manifests = of("base")?;
    let strategy = &only(&manifests, "DaemonSet")?["spec"]["updateStrategy"];
    assert_eq!(strategy["rollingUpdate"], json!({ "maxSurge": 0, "maxUnavailable": "10%" }));
    Ok(())
}

#[test]
fn every_mount_and_every_capability_has_its_reason() -> Result<()> {
    let text = text("kubernetes/base/daemonset.yaml")?;
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let reasoned =
        |at: usize| at.checked_sub(1).and_then(|before| lines.get(before)).is_some_and(|line| line.starts_with('#'));
    let from = |word: &str| lines.iter().position(|line| *line == word).with_context(|| word.to_owned());
    let (add, mounts, volumes) = (from("add:")?, from("volumeMounts:")?, from("volumes:")?);
    let entries =
        |range: std::ops::Range<usize>| range.filter(|at| lines.get(*at).is_some_and(|line| line.starts_with("- ")));
    let capabilities = entries(add..from("startupProbe:")?);
    let all: Vec<_> = capabilities.chain(entries(mounts..volumes)).collect();
    assert_eq!(all.len(), 11, "six capabilities, five mounts");
    for at in all {
        assert!(reasoned(at), "line {}: why?", at + 1);
    }
    Ok(())
}

/// The other side needs the certificate's authority, the name in it, and the token; and the agent what goes with them.
#[test]
fn prometheus_is_let_in_by_certificate_and_token_only() -> Result<()> {
    let manifests = of("overlays/enforce")?;
    let endpoint = &only(&manifests, "PodMonitor")?["spec"]["podMetricsEndpoints"][0];
    assert_eq!((&endpoint["scheme"], &endpoint["port"]), (&json!("https"), &json!("metrics")));
    assert_eq!(endpoint["tlsConfig"].get("insecureSkipVerify"), None);
    let pod = only(&manifests, "DaemonSet")?.pointer("/spec/template/spec").context("no pod")?;
    let container = &pod["containers"][0];
    let args: Vec<_> = list(container, "/args").iter().filter_map(Value::as_str).collect();
    assert_eq!(
        args,
        [
            "run",
            "--listen=127.0.0.1:9477",
            "--listen=[::]:9478",
            "--tls-certificate=/etc/dupip-tls/tls.crt",
            "--tls-key=/etc/dupip-tls/tls.key",
            "--token-file=/etc/dupip-token/token",
        ]
    );
    assert_eq!(container["ports"], json!([{ "name": "metrics", "containerPort": 9478, "hostPort": 9478 }]));
    for secret in ["dupip-tls", "dupip-token"] {
        let is_it = |volume: &&Value| volume.pointer("/secret/secretName") == Some(&json!(secret));
        let volume = list(pod, "/volumes").iter().find(is_it).context(secret)?;
        assert_eq!(volume["secret"]["defaultMode"], 0o400);
    }
    assert!(!list(only(&manifests, "PrometheusRule")?, "/spec/groups").is_empty());
    Ok(())
}

#[test]
fn every_key_of_the_configuration_is_a_flag() -> Result<()> {
    let bridge = Runner::new()?.bridge("rt0", "10.8.64.1/24")?;
    let help = Dupip::on(&bridge)?.command(["run", "--help"]).run()?;
    let flags: Vec<_> = help.split_whitespace().filter_map(|word| word.strip_prefix("--")).collect();
    for folder in ["base", "overlays/enforce"] {
        let manifests = of(folder)?;
        let file = only(&manifests, "ConfigMap")?["data"]["dupip.toml"].as_str().context("no dupip.toml")?;
        let keys: Vec<_> = file.lines().filter_map(|line| Some(line.split_once(" = ")?.0)).collect();
        assert!(keys.contains(&"bridge") && keys.contains(&"mode"), "{keys:?}");
        let unknown = keys.iter().find(|key| !flags.iter().any(|flag| flag.split(['[', '=']).next() == Some(**key)));
        assert_eq!(unknown, None, "{folder}");
    }
    Ok(())
}

#[test]
fn the_image_has_the_version_that_is_built() -> Result<()> {
    let bridge = Runner::new()?.bridge("rt0", "10.8.64.1/24")?;
    let version = Dupip::on(&bridge)?.command(["--version"]).run()?;
    let version = version.trim().replace(' ', ":");
    for folder in ["base", "overlays/enforce"] {
        let manifests = of(folder)?;
        let image = &only(&manifests, "DaemonSet")?["spec"]["template"]["spec"]["containers"][0]["image"];
        // The domain is nobody's (RFC 2606): whoever has not set the name gets no image, and not a stranger's.
        assert_eq!(*image, format!("registry.example/{version}"), "{folder}");
    }
    assert!(text("container/Dockerfile")?.contains(&format!("--tag {version} ")));
    Ok(())
}

/// Whoever breaks in finds nothing to go on with.
#[test]
fn the_image_has_dupip_and_no_other_program() -> Result<()> {
    assert_eq!(last_stage()?.first().map(String::as_str), Some("FROM scratch"));
    let bridge = Runner::new()?.bridge("rt0", "10.8.64.1/24")?;
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let root = folder.path().join("root");
    assemble(Dupip::on(&bridge)?.program(), &root)?;
    let assembled: BTreeSet<_> = files(&root)?.into_iter().collect();
    let config = build(&root, folder.path())?;
    assert_eq!(files(&folder.path().join("out"))?.into_iter().collect::<BTreeSet<_>>(), assembled);
    let is_library = |file: &String| file.contains("/lib") && file.contains(".so.");
    let (libraries, others): (Vec<_>, Vec<_>) = assembled.into_iter().partition(is_library);
    assert_eq!(others, ["/etc/nsswitch.conf", "/etc/ssl/certs/ca-certificates.crt", "/usr/bin/dupip"]);
    assert!(libraries.iter().any(|file| file.ends_with("/libc.so.6")), "{libraries:?}");

    assert_eq!((&config["Entrypoint"], &config["Cmd"]), (&json!(entry_point()?), &json!(["run"])));
    let check: Vec<_> = ["CMD".to_owned()].into_iter().chain(health_check()?).collect();
    assert_eq!(config["Healthcheck"]["Test"], json!(check));
    assert_eq!(config["Labels"]["org.opencontainers.image.title"], "dupip");
    Ok(())
}

#[test]
fn the_dockerfile_is_what_a_linter_wants() -> Result<()> {
    let lint =
        |text: &str| -> Result<String> { Ok(String::from_utf8(fed(program("hadolint").arg("-"), text)?.stdout)?) };
    let dockerfile = std::fs::read_to_string(packaging("container/Dockerfile"))?;
    assert_eq!(lint(&dockerfile)?, "");
    for (right, wrong, said) in [("rust:1.95-bookworm", "rust", "DL3006"), ("COPY . .", "COPPY . .", "unexpected")] {
        let refused = lint(&dockerfile.replacen(right, wrong, 1))?;
        assert!(refused.contains(said), "{wrong}: {refused}");
    }
    Ok(())
}
