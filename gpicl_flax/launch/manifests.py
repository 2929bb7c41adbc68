"""Manifests for GKE: the templates of this folder, read as data, and filled in as data."""

import base64
import pathlib
import re
from typing import Any

import yaml

from gpicl_flax.launch import storage
from gpicl_flax.launch.plan import Plan

_PROGRAMS = "/gpicl-programs"  # in a container


class _Dumper(yaml.SafeDumper):
    """Quotes what any reader of YAML may take for something else than a string, such as y or 1e5."""


def _represent(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    is_plain = re.fullmatch(r"[A-Za-z][-A-Za-z0-9_./]{2,}", text)
    style = None if is_plain else "|" if "\n" in text else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _represent)


def text(documents: list[dict[str, Any]]) -> str:
    """Returns manifests as YAML."""
    return yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=10_000, allow_unicode=True)


def _template(name: str, values: dict[str, Any]) -> Any:
    return _filled([*yaml.safe_load_all(pathlib.Path(__file__).with_name(name).read_text())], values)


def _filled(node: Any, values: dict[str, Any]) -> Any:
    """Returns a part of a template with values in the place of <names>, without fields whose value is None."""
    if isinstance(node, dict):
        parts = {key: _filled(part, values) for key, part in node.items()}
        return {key: part for key, part in parts.items() if part is not None}
    if isinstance(node, list):
        return [_filled(part, values) for part in node]
    return values[node[1:-1]] if isinstance(node, str) and re.fullmatch("<[a-z_]+>", node) else node


def jobset(plan: Plan, shard: int) -> list[dict[str, Any]]:
    """Returns the JobSet of a shard, behind what it needs."""
    given, slices, name, files = plan.options, plan.slices, plan.id(shard), plan.gin.embedded
    assert slices is not None
    is_remote, stored = storage.is_remote(given.workdir), f"{plan.store}/compilation_cache"
    variables = {"JAX_COMPILATION_CACHE_DIR": _PROGRAMS if is_remote else stored, "TFDS_DATA_DIR": given.data_dir}
    variables |= {"JAX_COORDINATOR_PORT": given.coordinator_port}
    mounts: list[dict[str, Any]] = [{"name": "programs", "mountPath": _PROGRAMS}] if is_remote else []
    volumes: list[dict[str, Any]] = [{"name": "programs", "emptyDir": {}}] if is_remote else []
    if files:
        mounts.append({"name": "files", "mountPath": "/gpicl", "readOnly": True})
        items = [{"key": f"file-{number}", "path": path} for number, path in enumerate(files)]
        volumes.append({"name": "files", "configMap": {"name": f"{name}-files", "items": items}})
    values = {
        "name": name, "files": f"{name}-files", "launch": given.name, "namespace": given.namespace,
        "queue": given.queue, "digest": plan.digest, "max_restarts": given.max_restarts, "image": given.image,
        "hosts": slices.hosts, "chips": slices.num_chips // slices.hosts, "service_account": given.service_account,
        "node_labels": slices.gke_labels | ({"cloud.google.com/gke-spot": "true"} if given.spot else {}),
        "arguments": [_escaped(word) for word in plan.arguments(shard)], "folder": "/gpicl" if files else None,
        "variables": [{"name": key, "value": _escaped(str(value))} for key, value in variables.items() if value],
        "stored": _escaped(stored), "port": given.coordinator_port or 8482,
        "data": {f"file-{number}": base64.b64encode(data).decode() for number, data in enumerate(files.values())},
        "mounts": mounts or None, "volumes": volumes or None,
    }  # fmt: skip
    config_map, found = _template("jobset.yaml", values)
    if not is_remote:
        del found["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["initContainers"]
    return [config_map, found] if files else [found]


def _escaped(value: str) -> str:
    """Returns an argument or a variable as Kubernetes reads it: it replaces $(NAME), and takes $$ for a dollar sign."""
    return value.replace("$", "$$")


def queue(plan: Plan) -> list[dict[str, Any]]:
    """Returns the queue: as many chips as may be in use at once."""
    given, slices = plan.options, plan.slices
    assert slices is not None
    flavor = "-".join([given.queue, *slices.gke_labels.values()])
    values = {"queue": given.queue, "namespace": given.namespace, "chips": slices.num_chips * plan.most}
    return _template("kueue.yaml", values | {"flavor": flavor, "node_labels": slices.gke_labels})
