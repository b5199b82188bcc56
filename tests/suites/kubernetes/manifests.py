"""Reads manifests as YAML, checks each against its schema, and prints them as one list in JSON.

What a schema does not know is refused, as `kubectl apply --validate=strict` does: on standard error, one line for each, and
the exit code is 1.
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


manifests = [manifest for manifest in yaml.safe_load_all(sys.stdin) if manifest is not None]
found = [
    f"{manifest['kind']} {manifest['metadata']['name']}: {fault}" for manifest in manifests for fault in faults(manifest)
]
print(json.dumps(manifests))
sys.exit("\n".join(found) if found else 0)
