"""--engine gke: manifests that the published APIs accept, and what is applied when."""

import json
import re
import subprocess
import time

import pytest
import yaml

from gpicl_flax.launch import manifests
from gpicl_flax.launch.system import Answer

OPTIONS = [
    *("gin/state_size.gin", "--engine", "gke", "--image", "gcr.io/p/gpicl:1", "--name", "sweep"),
    *("--workdir", "gs://bucket/study", "--accelerator_type", "v5litepod-16"),
]

# What the APIs take, as far as the manifests use it: a dict for an object, with ! behind a field that must be there; a
# list for a list; a set for an enumeration; a type; a pattern. jobset.x-k8s.io/v1alpha2 (of JobSet 0.6 and newer) and
# kueue.x-k8s.io/v1beta2 (of Kueue 0.15 and newer), batch/v1 and v1 of Kubernetes 1.31.
NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?")
LABELS = {
    re.compile(r"([-a-z0-9.]+/)?[-A-Za-z0-9_.]{1,63}"): re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
}
META = {"name!": NAME, "namespace": NAME, "labels": LABELS, "annotations": {re.compile(".+"): str}}
POD = {
    "restartPolicy!": {"Never"},  # podFailurePolicy needs it
    "terminationGracePeriodSeconds": int,
    "serviceAccountName": NAME,
    "nodeSelector": LABELS,
    "tolerations": [{"key": str, "operator": {"Exists", "Equal"}, "value": str, "effect": {"NoSchedule", "NoExecute"}}],
    "volumes": [
        {
            "name!": NAME,
            "configMap": {"name!": NAME, "items": [{"key!": str, "path!": str}]},
            "emptyDir": {"medium": str, "sizeLimit": str},
        }
    ],
    "initContainers": [
        {
            "name!": NAME,
            "image!": str,
            "command": [str],
            "args": [str],
            "restartPolicy": {"Always"},
            "env": [{"name!": re.compile(r"[A-Za-z_][A-Za-z0-9_]*"), "value": str}],
            "volumeMounts": [{"name!": NAME, "mountPath!": str, "readOnly": bool}],
        }
    ],
    "containers!": [
        {
            "name!": NAME,
            "image!": str,
            "command": [str],
            "args": [str],
            "workingDir": str,
            "env": [{"name!": re.compile(r"[A-Za-z_][A-Za-z0-9_]*"), "value": str}],
            "ports": [{"containerPort!": int}],
            "volumeMounts": [{"name!": NAME, "mountPath!": str, "readOnly": bool}],
            "resources": {"requests": {"google.com/tpu": int}, "limits": {"google.com/tpu": int}},
        }
    ],
}
JOB = {
    "completionMode": {"NonIndexed", "Indexed"},
    "completions": int,
    "parallelism": int,
    "backoffLimit": int,
    "podFailurePolicy": {
        "rules!": [
            {
                "action!": {"FailJob", "FailIndex", "Ignore", "Count"},
                "onExitCodes": {"containerName": NAME, "operator!": {"In", "NotIn"}, "values!": [int]},
                "onPodConditions": [{"type!": str, "status!": {"True", "False", "Unknown"}}],
            }
        ]
    },
    "template!": {"metadata": {"labels": LABELS}, "spec!": POD},
}
JOBSET = {
    "apiVersion!": {"jobset.x-k8s.io/v1alpha2"},
    "kind!": {"JobSet"},
    "metadata!": META,
    "spec!": {
        "network": {"enableDNSHostnames": bool, "subdomain": NAME, "publishNotReadyAddresses": bool},
        "failurePolicy": {
            "maxRestarts": int,
            "restartStrategy": {"Recreate", "BlockingRecreate"},
            "rules": [
                {
                    "name": re.compile(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?"),
                    "action!": {"FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"},
                    "onJobFailureReasons": [
                        {
                            "BackoffLimitExceeded",
                            "DeadlineExceeded",
                            "FailedIndexes",
                            "MaxFailedIndexesExceeded",
                            "PodFailurePolicy",
                        }
                    ],
                }
            ],
        },
        "replicatedJobs": [{"name!": NAME, "replicas": int, "template!": {"spec!": JOB}}],
    },
}
CONFIG_MAP = {
    "apiVersion!": {"v1"},
    "kind!": {"ConfigMap"},
    "metadata!": META,
    "binaryData": {re.compile(r"[-._a-zA-Z0-9]+"): str},
}
KUEUE = {"apiVersion!": {"kueue.x-k8s.io/v1beta2"}, "metadata!": META}
FLAVOR = {**KUEUE, "kind!": {"ResourceFlavor"}, "spec": {"nodeLabels": LABELS}}
CLUSTER_QUEUE = {
    **KUEUE,
    "kind!": {"ClusterQueue"},
    "spec": {
        "namespaceSelector": {},
        "queueingStrategy": {"StrictFIFO", "BestEffortFIFO"},
        "resourceGroups": [
            {
                "coveredResources!": [str],
                "flavors!": [{"name!": NAME, "resources!": [{"name!": str, "nominalQuota!": int}]}],
            }
        ],
    },
}
LOCAL_QUEUE = {**KUEUE, "kind!": {"LocalQueue"}, "spec": {"clusterQueue": NAME}}


def check(value, run_info, where="manifest"):
    """Fails where a value is not what the facts say."""
    if isinstance(run_info, dict):
        assert isinstance(value, dict), where
        required = {key[:-1] for key in run_info if isinstance(key, str) and key.endswith("!")}
        assert required <= value.keys(), f"{where} lacks {required - value.keys()}"
        for key, part in value.items():
            fitting = [
                f
                for k, f in run_info.items()
                if (k.fullmatch(key) if isinstance(k, re.Pattern) else k.rstrip("!") == key)
            ]
            assert fitting, f"{where} has no field {key}"
            check(part, fitting[0], f"{where}.{key}")
    elif isinstance(run_info, list):
        assert isinstance(value, list), where
        for i, part in enumerate(value):
            check(part, run_info[0], f"{where}[{i}]")
    elif isinstance(run_info, set):
        assert value in run_info, f"{where}: {value!r} is none of {run_info}"
    elif isinstance(run_info, re.Pattern):
        assert isinstance(value, str) and run_info.fullmatch(value), f"{where}: {value!r}"
    else:
        assert type(value) is run_info, f"{where}: {value!r} is no {run_info.__name__}"


def check_jobset(jobset):
    check(jobset, JOBSET)
    [replicated] = jobset["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    assert job["completions"] == job["parallelism"]
    rules = job["podFailurePolicy"]["rules"]
    assert all(len(rule.keys() & {"onExitCodes", "onPodConditions"}) == 1 for rule in rules) and len(rules) <= 20
    containers = job["template"]["spec"]["containers"]
    for rule in rules:
        if "onExitCodes" in rule:
            codes = rule["onExitCodes"]["values"]
            assert codes == sorted(set(codes)) and (0 not in codes or rule["onExitCodes"]["operator"] == "NotIn")
            assert rule["onExitCodes"]["containerName"] in [container["name"] for container in containers]
    # GKE wants requests and limits of TPUs to be equal.
    assert containers[0]["resources"]["requests"] == containers[0]["resources"]["limits"]
    # Names of pods, <jobset>-<job>-<replica>-<host>-<random>, are host names.
    assert len(f"{jobset['metadata']['name']}-{replicated['name']}-0-{job['completions']}") <= 57


@pytest.mark.parametrize(
    ("accelerator_type", "accelerator", "topology", "hosts", "chips"),
    [
        ("v5litepod-1", "tpu-v5-lite-podslice", "1x1", 1, 1),
        ("v5litepod-8", "tpu-v5-lite-podslice", "2x4", 1, 8),
        ("v5litepod-16", "tpu-v5-lite-podslice", "4x4", 4, 4),
        ("v6e-256", "tpu-v6e-slice", "16x16", 64, 4),
        ("v4-16", "tpu-v4-podslice", "2x2x2", 2, 4),
        ("v5p-8", "tpu-v5p-slice", "2x2x1", 1, 4),
    ],
)
def test_a_jobset_is_what_the_api_takes_and_fits_its_slice(
    run, machine, accelerator_type, accelerator, topology, hosts, chips
):
    (machine.here / "own.gin").write_text("include 'gin/base.gin'\n")
    more = [
        "--accelerator_type",
        accelerator_type,
        "--spot",
        "--service_account",
        "trainer",
        "--coordinator_port",
        "8476",
    ]
    result = run("sweep", "own.gin", *OPTIONS, *more, "--num_slices", "2", "--name", "s" * 40)
    assert result.code == 0, result.err
    for shard in (1, 2):
        jobset = machine.kubectl.applied("jobset", f"{'s' * 40}-{shard}")
        check_jobset(jobset)
        check(machine.kubectl.applied("configmap", f"{'s' * 40}-{shard}-files"), CONFIG_MAP)
        job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
        assert (job["completionMode"], job["completions"]) == ("Indexed", hosts)
        pod = job["template"]["spec"]
        assert pod["nodeSelector"] == {
            "cloud.google.com/gke-tpu-accelerator": accelerator,
            "cloud.google.com/gke-tpu-topology": topology,
            "cloud.google.com/gke-spot": "true",
        }
        assert pod["containers"][0]["resources"]["limits"] == {"google.com/tpu": chips}
        assert pod["containers"][0]["args"][-2:] == ["--shard", f"{shard}/2"]
        assert {"name": "JAX_COORDINATOR_PORT", "value": "8476"} in pod["containers"][0]["env"]
    check(machine.kubectl.applied("localqueue", "gpicl"), LOCAL_QUEUE)
    check(machine.kubectl.applied("resourceflavor", f"gpicl-{accelerator}-{topology}"), FLAVOR)
    queue = machine.kubectl.applied("clusterqueue", "gpicl")
    check(queue, CLUSTER_QUEUE)
    [flavor] = queue["spec"]["resourceGroups"][0]["flavors"]
    assert flavor["resources"] == [{"name": "google.com/tpu", "nominalQuota": 2 * hosts * chips}]


def test_the_check_of_manifests_finds_mistakes(run, machine):
    assert run("sweep", *OPTIONS).code == 0
    good = machine.kubectl.applied("jobset", "sweep-1")
    check_jobset(good)
    for old, new in [
        ('"Indexed"', '"indexed"'),
        ('"podFailurePolicy"', '"podFailPolicy"'),
        ('"status": "True"', '"status": true'),
    ]:
        assert old in json.dumps(good)
        with pytest.raises((AssertionError, KeyError)):
            check_jobset(json.loads(json.dumps(good).replace(old, new)))


def test_42_and_disruptions_cost_no_restart_2_ends_and_the_rest_restarts(run, machine):
    assert run("sweep", *OPTIONS, "--max_restarts", "3").code == 0
    spec = machine.kubectl.applied("jobset", "sweep-1")["spec"]
    job = spec["replicatedJobs"][0]["template"]["spec"]
    first, *others = job["podFailurePolicy"]["rules"]
    assert (first["action"], first["onExitCodes"]["values"]) == ("FailJob", [2])
    assert [rule["action"] for rule in others] == ["Ignore", "Ignore"]  # a new pod within the same Job
    assert others[0]["onExitCodes"]["values"] == [42] and others[1]["onPodConditions"][0]["type"] == "DisruptionTarget"
    policy = spec["failurePolicy"]
    assert policy["rules"][0] == {
        "name": "wrongUsage",
        "action": "FailJobSet",
        "onJobFailureReasons": ["PodFailurePolicy"],
    }
    assert (job["backoffLimit"], policy["maxRestarts"], policy["restartStrategy"]) == (0, 3, "BlockingRecreate")


def test_base_datasets_are_where_the_image_or_the_option_says(run, machine):
    assert run("sweep", *OPTIONS).code == 0
    plain = machine.kubectl.applied("jobset", "sweep-1")
    assert "TFDS_DATA_DIR" not in json.dumps(plain)
    result = run("sweep", *OPTIONS, "--data_dir", "/data", "--name", "other")
    assert result.code == 0, result.err
    jobset = machine.kubectl.applied("jobset", "other-1")
    check_jobset(jobset)
    [container] = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"]
    assert {"name": "TFDS_DATA_DIR", "value": "/data"} in container["env"]
    assert "'--command=env TFDS_DATA_DIR=/data gpicl sweep " in result.out  # the same with xpk
    # Other data are another payload.
    assert jobset["metadata"]["labels"]["gpicl-digest"] != plain["metadata"]["labels"]["gpicl-digest"]


def test_programs_are_kept_in_the_pod_and_copied_by_containers_beside_gpicl(run, machine):
    assert run("sweep", *OPTIONS).code == 0
    jobset = machine.kubectl.applied("jobset", "sweep-1")
    check_jobset(jobset)
    pod = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    [gpicl] = pod["containers"]
    folder = gpicl["volumeMounts"][0]["mountPath"]
    assert {"name": "JAX_COMPILATION_CACHE_DIR", "value": folder} in gpicl["env"]
    assert pod["volumes"] == [{"name": "programs", "emptyDir": {}}]
    fetch, store = pod["initContainers"]
    # A container with restartPolicy runs beside the others and does not keep the pod from ending.
    assert "restartPolicy" not in fetch and store["restartPolicy"] == "Always"


@pytest.mark.launch
def test_the_containers_beside_gpicl_copy_programs(run, machine, cloud):
    assert run("sweep", *OPTIONS).code == 0
    jobset = machine.kubectl.applied("jobset", "sweep-1")
    pod = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    [gpicl] = pod["containers"]
    folder = gpicl["volumeMounts"][0]["mountPath"]
    fetch, store = pod["initContainers"]
    stored = cloud.bucket / "study/.launch/compilation_cache"
    stored.mkdir(parents=True)
    (stored / "before").write_text("compiled")
    programs = cloud.folder / "programs"
    programs.mkdir()

    def start(container, index="0") -> subprocess.Popen:
        assert container["volumeMounts"] == gpicl["volumeMounts"] and container["command"] == ["bash", "-c"]
        [script] = container["args"]
        environment = {variable["name"]: variable["value"] for variable in container["env"]}
        environment |= {**cloud.environment, "JOB_COMPLETION_INDEX": index}
        return subprocess.Popen(["bash", "-c", script.replace(folder, str(programs))], env=environment)

    assert start(fetch).wait(60) == 0
    assert [path.name for path in programs.iterdir()] == ["before"]
    cloud.put_on_path("sleep", f"touch {cloud.folder}/sleeps; exec /bin/sleep 20")
    for index, names in (("1", ["before"]), ("0", ["before", "new"])):
        (programs / "new").write_text("compiled")
        process = start(store, index)
        until = time.monotonic() + 60
        while not (cloud.folder / "sleeps").exists() and time.monotonic() < until:
            time.sleep(0.02)
        (cloud.folder / "sleeps").unlink()
        process.terminate()
        assert process.wait(60) == 0 and sorted(path.name for path in stored.iterdir()) == names


def test_a_mounted_working_folder_keeps_the_programs_itself(run, machine):
    at = OPTIONS.index("gs://bucket/study")
    assert run("sweep", *OPTIONS[:at], "/mnt/study", *OPTIONS[at + 1 :]).code == 0
    jobset = machine.kubectl.applied("jobset", "sweep-1")
    check_jobset(jobset)
    pod = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    variable = {"name": "JAX_COMPILATION_CACHE_DIR", "value": "/mnt/study/.launch/compilation_cache"}
    assert variable in pod["containers"][0]["env"] and not pod.keys() & {"initContainers", "volumes"}


def test_a_second_call_submits_only_what_is_missing(run, machine):
    assert run("sweep", *OPTIONS, "--num_slices", "3").code == 0
    assert machine.kubectl.verbs().count("apply") == 4  # the queue, and three JobSets
    machine.kubectl.end("sweep-1", "Completed")
    machine.kubectl.end("sweep-2", "Failed")
    before = len(machine.kubectl.calls)
    result = run("sweep", *OPTIONS, "--num_slices", "3")
    assert result.code == 0, result.err
    assert "sweep-1: done already" in result.out and "sweep-3: there already" in result.out
    assert [verb for verb in machine.kubectl.verbs()[before:] if verb != "get"] == ["delete", "apply"]
    # JobSets cannot be changed: other arguments are refused while the old ones run.
    other = run("sweep", *OPTIONS, "--num_slices", "3", "--gin_bindings", "A = 1")
    assert other.code == 2 and "sweep-2 exists and was started with other arguments" in other.err
    assert machine.kubectl.verbs().count("delete") == 1


def test_a_queue_that_is_there_is_left_alone(run, machine):
    (machine.folder / "kubectl/localqueue-team.json").write_text("{}")
    assert run("sweep", *OPTIONS, "--queue", "team").code == 0
    assert machine.kubectl.verbs().count("apply") == 1
    assert machine.kubectl.applied("jobset", "sweep-1")["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"


def test_the_same_with_xpk_is_printed(run, machine):
    result = run("sweep", *OPTIONS, "--cluster", "pods", "--project", "my-project", "--zone", "us-west4-a")
    [line] = [line for line in result.out.splitlines() if line.startswith("# xpk ")]
    assert "--max-restarts=100 --restart-on-exit-codes=42" in line and "--tpu-type=v5litepod-16" in line
    assert "--workload=sweep-1 --cluster=pods" in line
    assert all("--context=gke_my-project_us-west4-a_pods" in call for call in machine.kubectl.calls)


def test_status_and_delete(run, machine):
    assert run("sweep", *OPTIONS, "--num_slices", "2").code == 0
    where = ["--engine", "gke", "--name", "sweep"]
    assert "jobset/sweep-1" in run("status", *where).out
    assert run("delete", *where, "--yes").code == 0
    assert not list((machine.folder / "kubectl").glob("jobset-*"))
    again = run("delete", *where, "--yes")
    assert again.code == 0 and "no JobSets" in again.out


def test_manifests_are_one_yaml_document_each(run, machine):
    assert run("sweep", *OPTIONS).code == 0
    folder = machine.home / ".cache/gpicl_flax/launch/sweep"
    assert len(list(yaml.safe_load_all((folder / "sweep-1.yaml").read_text()))) == 1
    assert len(list(yaml.safe_load_all((folder / "kueue.yaml").read_text()))) == 3


@pytest.mark.parametrize("verb", ["get", "apply"])
def test_what_kubectl_complains_about_is_told(run, machine, verb):
    answer = machine.kubectl

    def kubectl(argv):
        return Answer(1, "", "error: the cluster is down") if verb in argv else answer(argv)

    machine.kubectl = kubectl
    result = run("sweep", *OPTIONS)
    assert result.code == 1 and "the cluster is down" in result.err
    if verb == "get":
        where = ["--engine", "gke", "--name", "sweep"]
        assert run("status", *where).code == 1 and run("delete", *where, "--yes").code == 1


def test_strings_stay_strings_for_any_reader_of_yaml():
    texts = [
        "y",
        "no",
        "1e5",
        "123e4567",
        "0x1F",
        "4x4",
        "null",
        "a: b",
        "- a",
        "a\nb\n",
        "é $x",
        "",
        "~",
        "2026-12-01",
    ]
    text = manifests.text([{"of": texts, "y": 1}])
    assert yaml.safe_load(text) == {"of": texts, "y": 1}
    # Readers differ in what they take for a number or a boolean, but not in what is in quotes.
    values = [line.removeprefix("- ") for line in text.splitlines() if line.startswith("- ")]
    assert len(values) == len(texts) and all(value[0] in "\"'|" for value in values) and '"y": 1' in text
