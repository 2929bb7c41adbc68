"""Manifests for GKE: a JobSet for each shard, and the Kueue queue that they wait in.

A host that exits with 42, or whose node is taken away, gets a new pod within the same Job, at no cost. Exit code 2
fails the Job by a rule of its podFailurePolicy, and that fails the JobSet. Any other code fails the Job by its
backoffLimit of 0, and then the JobSet makes all pods of the slice anew, at most maxRestarts times.
"""

import base64
from typing import Any

import yaml

from gpicl_flax.launch import storage
from gpicl_flax.launch.plan import Plan

_CLOUD_CLI_IMAGE = "gcr.io/google.com/cloudsdktool/google-cloud-cli:slim"  # copies compiled programs
_PROGRAMS = "/gpicl-programs"  # in a container
_FETCH = f'gcloud storage rsync --quiet --recursive "$STORED" {_PROGRAMS} || true\n'
_STORE = f"""store() {{
  [[ $JOB_COMPLETION_INDEX != 0 ]] \\
    || gcloud storage rsync --quiet --recursive {_PROGRAMS} "$STORED" || true
}}
trap 'store; exit 0' TERM
while true; do
  sleep 300 & wait "$!"
  store
done
"""


def text(documents: list[dict[str, Any]]) -> str:
    """Returns manifests as YAML."""
    return yaml.safe_dump_all(documents, sort_keys=False, width=10_000)


def jobset(plan: Plan, shard: int) -> list[dict[str, Any]]:
    """Returns the JobSet of a shard, and what it needs."""
    given, name = plan.options, plan.id(shard)
    files = plan.gin.embedded
    metadata = {
        "name": name,
        "namespace": given.namespace,
        "labels": {
            "kueue.x-k8s.io/queue-name": given.queue,
            "gpicl-launch": given.name,
            "gpicl-digest": plan.digest,
        },
        "annotations": {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"},
    }
    policy = {
        "maxRestarts": given.max_restarts,
        "restartStrategy": "BlockingRecreate",
        "rules": [{"name": "wrongUsage", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}],
    }
    spec = {
        "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
        "failurePolicy": policy,
        "replicatedJobs": [{"name": "slice", "replicas": 1, "template": {"spec": _job(plan, shard)}}],
    }
    found = [{"apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet", "metadata": metadata, "spec": spec}]
    return [*([_config_map(plan, name)] if files else []), *found]


def _job(plan: Plan, shard: int) -> dict[str, Any]:
    assert plan.slices is not None
    rules = [
        {"action": action, "onExitCodes": {"containerName": "gpicl", "operator": "In", "values": [code]}}
        for action, code in (("FailJob", 2), ("Ignore", 42))
    ]
    lost = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    return {
        "completionMode": "Indexed",
        "completions": plan.slices.hosts,
        "parallelism": plan.slices.hosts,
        "backoffLimit": 0,
        "podFailurePolicy": {"rules": [*rules, lost]},
        "template": {"metadata": {"labels": {"gpicl-launch": plan.options.name}}, "spec": _pod(plan, shard)},
    }


def _pod(plan: Plan, shard: int) -> dict[str, Any]:
    given, slices = plan.options, plan.slices
    assert slices is not None
    selector = {
        "cloud.google.com/gke-tpu-accelerator": slices.chip.gke_accelerator,
        "cloud.google.com/gke-tpu-topology": slices.topology,
    }
    if given.spot:
        selector["cloud.google.com/gke-spot"] = "true"
    pod: dict[str, Any] = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 120}
    if given.service_account:
        pod["serviceAccountName"] = given.service_account
    pod["nodeSelector"] = selector
    pod["tolerations"] = [{"key": "google.com/tpu", "operator": "Exists", "effect": "NoSchedule"}]
    if storage.is_remote(given.workdir):
        pod["initContainers"] = _copiers(plan)
    pod["containers"] = [_container(plan, shard)]
    if volumes := _volumes(plan, plan.id(shard)):
        pod["volumes"] = volumes
    return pod


def _container(plan: Plan, shard: int) -> dict[str, Any]:
    given, slices = plan.options, plan.slices
    assert slices is not None
    is_remote = storage.is_remote(given.workdir)
    # In the pod where the working folder is on gs://, since every compilation would wait for the bucket.
    environment = {"JAX_COMPILATION_CACHE_DIR": _PROGRAMS if is_remote else f"{plan.store}/compilation_cache"}
    if given.data_dir:
        environment["TFDS_DATA_DIR"] = given.data_dir
    if given.coordinator_port:
        environment["JAX_COORDINATOR_PORT"] = str(given.coordinator_port)
    chips = {"google.com/tpu": slices.num_chips // slices.hosts}
    container: dict[str, Any] = {
        "name": "gpicl",
        "image": given.image,
        "command": ["gpicl"],
        "args": [_escaped(word) for word in plan.arguments(shard)],
        "env": [{"name": name, "value": _escaped(value)} for name, value in environment.items()],
        "ports": [{"containerPort": given.coordinator_port or 8482}],
        "resources": {"requests": chips, "limits": dict(chips)},
    }
    mounts = [{"name": "programs", "mountPath": _PROGRAMS}] if is_remote else []
    if plan.gin.embedded:
        container["workingDir"] = "/gpicl"
        mounts.append({"name": "files", "mountPath": "/gpicl", "readOnly": True})
    if mounts:
        container["volumeMounts"] = mounts
    return container


def _copiers(plan: Plan) -> list[dict[str, Any]]:
    """Returns the containers that copy compiled programs.

    One copies them into the pod before gpicl starts. Another one, which runs beside gpicl and ends after it, copies
    them back every five minutes and at the end, on host 0 alone: only there does JAX write programs.
    """
    fetch = {"name": "fetch-programs", "image": _CLOUD_CLI_IMAGE, "command": ["bash", "-c"], "args": [_FETCH]}
    store = {"name": "store-programs", "image": _CLOUD_CLI_IMAGE, "restartPolicy": "Always"}
    store |= {"command": ["bash", "-c"], "args": [_STORE]}
    settings = {
        "env": [{"name": "STORED", "value": _escaped(f"{plan.store}/compilation_cache")}],
        "volumeMounts": [{"name": "programs", "mountPath": _PROGRAMS}],
    }
    return [fetch | settings, store | settings]


def _escaped(value: str) -> str:
    """Returns an argument or a variable as Kubernetes reads it: it replaces $(NAME), and takes $$ for a dollar sign."""
    return value.replace("$", "$$")


def _config_map(plan: Plan, name: str) -> dict[str, Any]:
    """Returns the user's own gin files, as binary data: their names may hold slashes, keys may not."""
    files = plan.gin.embedded.values()
    metadata = {
        "name": f"{name}-files",
        "namespace": plan.options.namespace,
        "labels": {"gpicl-launch": plan.options.name},
    }
    data = {f"file-{number}": base64.b64encode(content).decode() for number, content in enumerate(files)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "binaryData": data}


def _volumes(plan: Plan, name: str) -> list[dict[str, Any]]:
    volumes: list[dict[str, Any]] = []
    if storage.is_remote(plan.options.workdir):
        volumes.append({"name": "programs", "emptyDir": {}})
    if plan.gin.embedded:
        items = [{"key": f"file-{number}", "path": path} for number, path in enumerate(plan.gin.embedded)]
        volumes.append({"name": "files", "configMap": {"name": f"{name}-files", "items": items}})
    return volumes


def queue(plan: Plan) -> list[dict[str, Any]]:
    """Returns the queue, for a cluster that has none of this name: as many chips as may be in use at once."""
    given, slices = plan.options, plan.slices
    assert slices is not None
    accelerator = slices.chip.gke_accelerator
    flavor = f"{given.queue}-{accelerator}-{slices.topology}"
    labels = {
        "cloud.google.com/gke-tpu-accelerator": accelerator,
        "cloud.google.com/gke-tpu-topology": slices.topology,
    }
    quota = {"name": "google.com/tpu", "nominalQuota": slices.num_chips * plan.most}
    group = {"coveredResources": ["google.com/tpu"], "flavors": [{"name": flavor, "resources": [quota]}]}
    common = {"apiVersion": "kueue.x-k8s.io/v1beta2"}
    return [
        {**common, "kind": "ResourceFlavor", "metadata": {"name": flavor}, "spec": {"nodeLabels": labels}},
        {
            **common,
            "kind": "ClusterQueue",
            "metadata": {"name": given.queue},
            "spec": {"namespaceSelector": {}, "queueingStrategy": "BestEffortFIFO", "resourceGroups": [group]},
        },
        {
            **common,
            "kind": "LocalQueue",
            "metadata": {"name": given.queue, "namespace": given.namespace},
            "spec": {"clusterQueue": given.queue},
        },
    ]
