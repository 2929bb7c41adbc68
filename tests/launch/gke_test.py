"""launch/tpu_sweep.sh --engine gke: manifests that the published APIs accept, and what is applied when."""

import json
import re
import subprocess
import time

import pytest
import yaml

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


def applied(cloud, kind, name):
    return json.loads((cloud.folder / "kubectl" / f"{kind}-{name}.json").read_text())


def verbs(cloud):
    return [next(a for a in call if not a.startswith("-")) for call in cloud.calls("kubectl")]


@pytest.mark.parametrize(
    ("accelerator_type", "accelerator", "topology", "hosts", "chips"),
    [
        pytest.param("v5litepod-1", "tpu-v5-lite-podslice", "1x1", 1, 1, marks=pytest.mark.launch),
        pytest.param("v5litepod-8", "tpu-v5-lite-podslice", "2x4", 1, 8, marks=pytest.mark.launch),
        ("v5litepod-16", "tpu-v5-lite-podslice", "4x4", 4, 4),
        ("v6e-256", "tpu-v6e-slice", "16x16", 64, 4),
        ("v4-16", "tpu-v4-podslice", "2x2x2", 2, 4),
        pytest.param("v5p-8", "tpu-v5p-slice", "2x2x1", 1, 4, marks=pytest.mark.launch),
    ],
)
def test_a_jobset_is_what_the_api_takes_and_fits_its_slice(
    cloud, accelerator_type, accelerator, topology, hosts, chips
):
    (cloud.here / "own.gin").write_text("include 'gin/base.gin'\n")
    more = [
        "--accelerator_type",
        accelerator_type,
        "--spot",
        "--service_account",
        "trainer",
        "--coordinator_port",
        "8476",
    ]
    result = cloud.run("tpu_sweep.sh", "own.gin", *OPTIONS, *more, "--num_slices", "2", "--name", "s" * 40)
    assert result.returncode == 0, result.stderr
    for shard in (1, 2):
        jobset = applied(cloud, "jobset", f"{'s' * 40}-{shard}")
        check_jobset(jobset)
        check(applied(cloud, "configmap", f"{'s' * 40}-{shard}-files"), CONFIG_MAP)
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
    check(applied(cloud, "localqueue", "gpicl"), LOCAL_QUEUE)
    check(applied(cloud, "resourceflavor", f"gpicl-{accelerator}-{topology}"), FLAVOR)
    queue = applied(cloud, "clusterqueue", "gpicl")
    check(queue, CLUSTER_QUEUE)
    [flavor] = queue["spec"]["resourceGroups"][0]["flavors"]
    assert flavor["resources"] == [{"name": "google.com/tpu", "nominalQuota": 2 * hosts * chips}]


def test_the_check_of_manifests_finds_mistakes(cloud):
    assert cloud.run("tpu_sweep.sh", *OPTIONS).returncode == 0
    good = applied(cloud, "jobset", "sweep-1")
    check_jobset(good)
    for old, new in [
        ('"Indexed"', '"indexed"'),
        ('"podFailurePolicy"', '"podFailPolicy"'),
        ('"status": "True"', '"status": true'),
    ]:
        assert old in json.dumps(good)
        with pytest.raises((AssertionError, KeyError)):
            check_jobset(json.loads(json.dumps(good).replace(old, new)))


def test_42_and_disruptions_cost_no_restart_2_ends_and_the_rest_restarts(cloud):
    assert cloud.run("tpu_sweep.sh", *OPTIONS, "--max_restarts", "3").returncode == 0
    spec = applied(cloud, "jobset", "sweep-1")["spec"]
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


def test_base_datasets_are_where_the_image_or_the_option_says(cloud):
    assert cloud.run("tpu_sweep.sh", *OPTIONS).returncode == 0
    plain = applied(cloud, "jobset", "sweep-1")
    assert "TFDS_DATA_DIR" not in json.dumps(plain)
    result = cloud.run("tpu_sweep.sh", *OPTIONS, "--data_dir", "/data", "--name", "other")
    assert result.returncode == 0, result.stderr
    jobset = applied(cloud, "jobset", "other-1")
    check_jobset(jobset)
    [container] = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"]
    assert {"name": "TFDS_DATA_DIR", "value": "/data"} in container["env"]
    assert "'--command=env TFDS_DATA_DIR=/data gpicl sweep " in result.stdout  # the same with xpk
    # Other data are another payload.
    assert jobset["metadata"]["labels"]["gpicl-digest"] != plain["metadata"]["labels"]["gpicl-digest"]


def test_programs_are_kept_in_the_pod_and_copied_by_containers_beside_gpicl(cloud):
    assert cloud.run("tpu_sweep.sh", *OPTIONS).returncode == 0
    jobset = applied(cloud, "jobset", "sweep-1")
    check_jobset(jobset)
    pod = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    [gpicl] = pod["containers"]
    folder = gpicl["volumeMounts"][0]["mountPath"]
    assert {"name": "JAX_COMPILATION_CACHE_DIR", "value": folder} in gpicl["env"]
    assert pod["volumes"] == [{"name": "programs", "emptyDir": {}}]
    fetch, store = pod["initContainers"]
    # A container with restartPolicy runs beside the others and does not keep the pod from ending.
    assert "restartPolicy" not in fetch and store["restartPolicy"] == "Always"
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


def test_a_mounted_working_folder_keeps_the_programs_itself(cloud):
    at = OPTIONS.index("gs://bucket/study")
    assert cloud.run("tpu_sweep.sh", *OPTIONS[:at], "/mnt/study", *OPTIONS[at + 1 :]).returncode == 0
    jobset = applied(cloud, "jobset", "sweep-1")
    check_jobset(jobset)
    pod = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    variable = {"name": "JAX_COMPILATION_CACHE_DIR", "value": "/mnt/study/.launch/compilation_cache"}
    assert variable in pod["containers"][0]["env"] and not pod.keys() & {"initContainers", "volumes"}


def test_a_second_call_submits_only_what_is_missing(cloud):
    assert cloud.run("tpu_sweep.sh", *OPTIONS, "--num_slices", "3").returncode == 0
    assert verbs(cloud).count("apply") == 4  # the queue, and three JobSets
    (cloud.folder / "kubectl/state-sweep-1").write_text("Completed")
    (cloud.folder / "kubectl/state-sweep-2").write_text("Failed")
    before = len(cloud.calls("kubectl"))
    result = cloud.run("tpu_sweep.sh", *OPTIONS, "--num_slices", "3")
    assert result.returncode == 0, result.stderr
    assert "sweep-1: done already" in result.stdout and "sweep-3: there already" in result.stdout
    assert [verb for verb in verbs(cloud)[before:] if verb != "get"] == ["delete", "apply"]
    # JobSets cannot be changed: other arguments are refused while the old ones run.
    other = cloud.run("tpu_sweep.sh", *OPTIONS, "--num_slices", "3", "--gin_bindings", "A = 1")
    assert other.returncode == 2 and "sweep-2 exists and was started with other arguments" in other.stderr
    assert verbs(cloud).count("delete") == 1


def test_a_queue_that_is_there_is_left_alone(cloud):
    (cloud.folder / "kubectl/localqueue-team.json").write_text("{}")
    assert cloud.run("tpu_sweep.sh", *OPTIONS, "--queue", "team").returncode == 0
    assert verbs(cloud).count("apply") == 1
    assert applied(cloud, "jobset", "sweep-1")["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"


def test_the_same_with_xpk_is_printed(cloud):
    result = cloud.run("tpu_sweep.sh", *OPTIONS, "--cluster", "pods", "--project", "my-project", "--zone", "us-west4-a")
    [line] = [line for line in result.stdout.splitlines() if line.startswith("# xpk ")]
    assert "--max-restarts=100 --restart-on-exit-codes=42" in line and "--tpu-type=v5litepod-16" in line
    assert "--workload=sweep-1 --cluster=pods" in line
    assert all("--context=gke_my-project_us-west4-a_pods" in call for call in cloud.calls("kubectl"))


def test_status_and_delete(cloud):
    assert cloud.run("tpu_sweep.sh", *OPTIONS, "--num_slices", "2").returncode == 0
    where = ["--engine", "gke", "--name", "sweep"]
    assert "jobset/sweep-1" in cloud.run("status.sh", *where).stdout
    assert cloud.run("delete.sh", *where, "--yes").returncode == 0
    assert not list((cloud.folder / "kubectl").glob("jobset-*"))
    again = cloud.run("delete.sh", *where, "--yes")
    assert again.returncode == 0 and "no JobSets" in again.stdout


def test_manifests_are_one_yaml_document_each(cloud):
    assert cloud.run("tpu_sweep.sh", *OPTIONS).returncode == 0
    folder = cloud.folder / "home/.cache/gpicl_flax/launch/sweep"
    assert len(list(yaml.safe_load_all((folder / "sweep-1.yaml").read_text()))) == 1
    assert len(list(yaml.safe_load_all((folder / "kueue.yaml").read_text()))) == 3
