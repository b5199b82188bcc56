"""Reads a list of texts, each of manifests in YAML, and checks them against their schemas.

For each text it prints its manifests and what is wrong with them, as JSON. What a schema does not know is wrong, too, as it
is for `kubectl apply --validate=strict`.
"""

import json
import sys

import kubernetes_validate
import yaml
from cloudcoil.models.prometheus_operator import v1
from pydantic import ValidationError

# The oldest with all that the manifests use, and the newest that there is.
VERSIONS = ("1.30", "1.37")


def unknown(given, known, path=""):
    """What of `given` is not in `known`: where it is."""
    if isinstance(given, dict) and isinstance(known, dict):
        for key, value in given.items():
            yield from unknown(value, known[key], f"{path}.{key}") if key in known else [f"{path}.{key}"]
    elif isinstance(given, list) and isinstance(known, list) and len(given) == len(known):
        for at, pair in enumerate(zip(given, known)):
            yield from unknown(*pair, f"{path}[{at}]")
    elif given != known or type(given) is not type(known):
        yield path


def faults_of_kubernetes(manifest):
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(manifest, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"Kubernetes {version}: {'.'.join(map(str, error.path))}: {error.message}"


def faults_of_prometheus(manifest):
    model = getattr(v1, manifest["kind"], None)
    if model is None:
        yield "the Prometheus operator knows no such kind"
        return
    try:
        known = model.model_validate(manifest).model_dump(mode="json", by_alias=True, exclude_unset=True)
    except ValidationError as error:
        yield from (f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        return
    yield from (f"{path.lstrip('.')} is unknown, or of another type" for path in unknown(manifest, known))


def faults(manifest):
    is_prometheus = manifest["apiVersion"].startswith("monitoring.coreos.com/")
    return faults_of_prometheus(manifest) if is_prometheus else faults_of_kubernetes(manifest)


def checked(text):
    manifests = [manifest for manifest in yaml.safe_load_all(text) if manifest is not None]
    name = "{kind} {metadata[name]}".format_map
    found = [f"{name(manifest)}: {fault}" for manifest in manifests for fault in faults(manifest)]
    return {"manifests": manifests, "faults": found}


json.dump([checked(text) for text in json.load(sys.stdin)], sys.stdout)
