"""The engine for GKE: submits what is missing. JobSet restarts and Kueue queues; nothing has to run here meanwhile."""

from collections.abc import Iterator
from typing import Any

from gpicl_flax.errors import GpiclError, UsageError
from gpicl_flax.launch import actions, manifests
from gpicl_flax.launch.actions import Action, WriteFile, command
from gpicl_flax.launch.options import Options
from gpicl_flax.launch.plan import Plan
from gpicl_flax.launch.system import System

_LABELS = "jsonpath={.metadata.labels.gpicl-digest} {.status.terminalState}"


def kubectl(options: Options) -> list[str]:
    """Returns the words with which calls of kubectl begin; raises UsageError if the cluster is not told in full."""
    words = ["kubectl"]
    if options.cluster:
        options.need("project", "with --cluster")
        options.need("zone", "with --cluster (for a regional cluster, its region)")
        # the name that `gcloud container clusters get-credentials` gives
        words.append(f"--context=gke_{options.project}_{options.zone}_{options.cluster}")
    return [*words, f"--namespace={options.namespace}"]


def check(options: Options) -> None:
    """Raises UsageError if an option is missing or wrong."""
    options.need("image", "with --engine gke: a container image that has gpicl")
    if "@" in (options.service_account or ""):
        raise UsageError(
            f"--service_account must be one of Kubernetes with --engine gke, not {options.service_account!r}"
        )
    kubectl(options)


def shown(plan: Plan, system: System) -> Iterator[Action]:
    """Yields what a run does."""
    del system  # nothing is asked
    yield f"# The queue, where the cluster has no LocalQueue {plan.options.queue}"
    yield from _applied(plan, "kueue", manifests.queue(plan))
    yield "# A JobSet for each shard"
    for shard in plan.shards:
        yield from _applied(plan, plan.id(shard), manifests.jobset(plan, shard))
    yield from _alternative(plan)


def _applied(plan: Plan, name: str, documents: list[dict[str, Any]]) -> list[Action]:
    path, failure = plan.folder / f"{name}.yaml", f"{name} could not be submitted"
    written = WriteFile(path, manifests.text(documents))
    return [written, command(*kubectl(plan.options), "apply", "-f", path, failure=failure)]


def _alternative(plan: Plan) -> Iterator[str]:
    """Yields the same with xpk, which counts restarts after 42 as well, so that it is given many."""
    given = plan.options
    if plan.gin.embedded:
        yield f"# (xpk would need an image that holds {next(iter(plan.gin.embedded))})"
        return
    yield "# Or, in a cluster made by xpk:"
    for shard in plan.shards:
        data = ["env", f"TFDS_DATA_DIR={given.data_dir}"] if given.data_dir else []
        own = actions.line([*data, "gpicl", *plan.arguments(shard)])
        words = ["xpk", "workload", "create", f"--workload={plan.id(shard)}", f"--cluster={given.cluster or 'CLUSTER'}"]
        words += [f"--tpu-type={given.accelerator_type}", "--num-slices=1", f"--docker-image={given.image}"]
        words += [f"--command={own}", "--max-restarts=100", "--restart-on-exit-codes=42"]
        words += [f"--{name}={value}" for name in ("project", "zone") if (value := getattr(given, name))]
        yield f"# {actions.line([*words, *(['--spot'] if given.spot else [])])}"


def run(plan: Plan, system: System) -> None:
    """Submits what is missing.

    Raises:
      UsageError: kubectl is missing, or a JobSet of the name does something else.
      GpiclError: kubectl refuses.
    """
    if system.path_of("kubectl") is None:
        raise UsageError("kubectl is not installed")
    start, given = kubectl(plan.options), plan.options
    missing, ended = _look(plan, system)
    for name in ended:
        system.say(f"{name}: deleting, it failed or was of other arguments")
        system.do([command(*start, "delete", "jobset", name, "--ignore-not-found", "--wait=true", failure="kubectl")])
    if missing:
        answer = system.call([*start, "get", "localqueue", given.queue, "-o", "name"])
        if answer.code:
            if "NotFound" not in answer.error:
                raise GpiclError(f"kubectl: {answer.error}")
            assert plan.slices is not None
            system.do(_applied(plan, "kueue", manifests.queue(plan)))
            system.say(f"queue {given.queue}: made, for {plan.slices.num_chips * plan.most} chips")
    for shard in missing:
        system.do(_applied(plan, plan.id(shard), manifests.jobset(plan, shard)))
        system.say(f"{plan.id(shard)}: submitted, {plan.folder / plan.id(shard)}.yaml")
    if missing:
        system.show("\n".join(_alternative(plan)))
    where = f"--engine gke --name {given.name}"
    system.say(f"watch with launch/status.sh {where}; launch/delete.sh {where} ends it")


def _look(plan: Plan, system: System) -> tuple[list[int], list[str]]:
    """Returns the shards that have to be submitted, and the JobSets that have to go first.

    These failed, or have ended and were of another payload.
    """
    missing, ended = [], []
    for shard in plan.shards:
        name = plan.id(shard)
        answer = system.call([*kubectl(plan.options), "get", "jobset", name, "-o", _LABELS])
        if answer.code:
            if "NotFound" not in answer.error:
                raise GpiclError(f"kubectl: {answer.error}")
            missing.append(shard)
            continue
        digest, _, state = answer.output.partition(" ")
        if state == "Completed" and digest == plan.digest:
            system.say(f"{name}: done already")
        elif state in ("Completed", "Failed"):
            missing.append(shard)
            ended.append(name)
        elif digest == plan.digest:
            system.say(f"{name}: there already, not ended yet")
        else:
            raise UsageError(
                f"{name} exists and was started with other arguments or another image; wait for it, delete it "
                f"(launch/delete.sh --engine gke --name {plan.options.name}), or take another --name"
            )
    return missing, ended
