"""The engine for Slurm: a job array with a task for each shard. Slurm queues and requeues; nothing has to run here.

The working folder, the gin files and this environment are where all nodes see them. A task tells gpicl to save before
its time is over, and queues itself again. What was cancelled, or lost in another way, the next call submits.
"""

import pathlib
import shlex
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gpicl_flax.errors import GpiclError, UsageError
from gpicl_flax.launch import local, startup, storage
from gpicl_flax.launch.actions import Action, Command, WriteFile, command, line
from gpicl_flax.launch.options import Options
from gpicl_flax.launch.plan import Plan
from gpicl_flax.launch.system import Answer, System

_FORWARDED = ("partition", "account", "qos", "gres", "constraint", "time", "cpus_per_task")
_EARLIER = 60  # seconds by which Slurm sends the signal before --time too early


class ArrayTask(NamedTuple):
    """A task of a job array that waits or runs.

    Attributes:
      id: its number for Slurm, such as 17_2.
      shard: the shard that it runs.
      state: as squeue says it, such as PENDING.
      where: the nodes, or why it waits.
      digest: that of the plan that it was submitted for.
    """

    id: str
    shard: int
    state: str
    where: str
    digest: str


def ranges(numbers: Sequence[int]) -> str:
    """Returns ascending numbers as sbatch takes them: 1-3,5."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][-1] + 1:
            found[-1][1:] = [number]
        else:
            found.append([number])
    return ",".join("-".join(map(str, part)) for part in found)


def submission(plan: Plan, shards: Sequence[int]) -> Command:
    """Returns what submits shards as one job array."""
    given = plan.options
    limit = f"%{given.array_limit}" if given.array_limit else ""
    log = f"{plan.store}/{given.name}-".replace("%", "%%") + "%a.log"
    words = ["sbatch", "--parsable", f"--job-name={given.name}", f"--comment=gpicl {plan.digest}"]
    words += [f"--array={ranges(shards)}{limit}", f"--output={log}", "--open-mode=append"]
    # The signal goes to the batch script alone, which tells gpicl to save, and asks for another turn.
    words += ["--requeue", f"--signal=B:USR1@{given.grace_seconds}", f"--nodes={given.nodes}", "--ntasks-per-node=1"]
    words += [f"--{name.replace('_', '-')}={value}" for name in _FORWARDED if (value := getattr(given, name))]
    return command(*words, _path(plan))


def _path(plan: Plan) -> pathlib.Path:
    return pathlib.Path(plan.store) / f"{plan.options.name}.sbatch"


def script(plan: Plan, system: System) -> WriteFile:
    """Returns the batch script, which is the same for all tasks.

    Raises:
      UsageError: jobs would have no time to train, --setup is no command, or there is no gpicl.
    """
    given = plan.options
    limit = _seconds(given.time or "0")
    if 0 < limit <= given.grace_seconds + _EARLIER:
        raise UsageError(
            f"--time {given.time} must be more than --grace_seconds {given.grace_seconds} and a minute, because jobs "
            "save then and wait for their next turn"
        )
    first = ["SHARD=$SLURM_ARRAY_TASK_ID"]
    if given.setup:  # read by the shell of the job, and by no other
        first.append(f"{_setup(given.setup)} || {{ echo 'the commands of --setup failed' >&2; exit 1; }}")
    if given.data_dir:
        first.append(f"export TFDS_DATA_DIR={shlex.quote(str(pathlib.Path(given.data_dir).resolve()))}")
    values = {
        "GPICL": local.gpicl(given, system),
        "NODES": given.nodes if given.nodes > 1 else "",
    }
    return WriteFile(_path(plan), startup.host_script(first, plan, values, {}))


def _setup(text: str) -> str:
    path = pathlib.Path(text)
    if path.is_file():
        return line(["source", str(path.resolve())])
    try:
        return line(shlex.split(text))
    except ValueError as error:
        raise UsageError(f"--setup must be a file or a command, not {text!r} ({error})") from None


def _seconds(time: str) -> int:
    """Returns a time of Slurm, M, M:S, H:M:S or D-H:M:S, in seconds."""
    days, _, rest = time.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    units = (3600, 60, 1) if days or len(parts) == 3 else (60, 1)
    return 86_400 * int(days or 0) + sum(part * unit for part, unit in zip(parts, units, strict=False))


def shown(plan: Plan, system: System) -> Iterator[Action]:
    """Yields what a run does."""
    yield "# The batch script, and a job array with a task for each shard that neither has ended nor waits or runs"
    yield script(plan, system)
    yield submission(plan, plan.shards)


def run(plan: Plan, system: System) -> None:
    """Submits what is missing.

    Raises:
      UsageError: Slurm is missing, or a job of the name does something else.
      GpiclError: Slurm refuses.
    """
    if system.path_of("sbatch") is None:
        raise UsageError("sbatch is not installed: this is no login node of a Slurm cluster")
    given, missing, batch = plan.options, [], script(plan, system)
    there = {task.shard: task for task in queue(given, system)}
    for shard in plan.shards:
        marker = f"{plan.store}/{plan.id(shard)}.result"
        result = storage.values(storage.read(system, marker))
        is_ours = result.get("digest") == plan.digest
        task = there.get(shard)
        if is_ours and result.get("exit_code") == "0":
            system.say(f"{plan.id(shard)}: done already ({marker}; remove it to run again)")
        elif task is not None and task.digest != plan.digest:
            raise UsageError(
                f"job {task.id} of the name {given.name} was submitted with other arguments; wait for it, delete it "
                f"(launch/delete.sh --engine slurm --name {given.name}), or take another --name"
            )
        elif task is not None:
            system.say(f"{plan.id(shard)}: there already, job {task.id}, {task.state}, {task.where}")
        else:
            missing.append(shard)
            pathlib.Path(marker).unlink(missing_ok=True)
    if missing:
        system.do([batch])
        answer = system.call(submission(plan, missing).words)
        if answer.code:
            raise GpiclError(f"nothing was submitted: {answer.error}")
        system.say(f"job {answer.output.partition(';')[0]}: submitted, shards {ranges(missing)}, logs in {plan.store}")
    where = f"--engine slurm --name {given.name}"
    system.say(f"watch with launch/status.sh {where}; launch/delete.sh {where} ends it")


def queue(options: Options, system: System) -> list[ArrayTask]:
    """Returns the tasks of a name that wait or run, by shard; raises GpiclError if squeue fails."""
    form = "%F\t%K\t%T\t%R\t%k"
    answer = system.call(["squeue", "--me", "--noheader", "--array", f"--name={options.name}", f"--format={form}"])
    if answer.code:
        raise GpiclError(f"the queue could not be read: {answer.error}")
    found = []
    for row in answer.output.splitlines():
        job, shard, state, where, comment = (*row.split("\t"), *[""] * 5)[:5]
        if shard.isdecimal() and comment.startswith("gpicl "):
            found.append(ArrayTask(f"{job}_{shard}", int(shard), state, where, comment.removeprefix("gpicl ")))
    return sorted(found, key=lambda task: task.shard)


def cancel(tasks: Sequence[ArrayTask], system: System) -> Answer:
    """Cancels tasks. They are told to save first, and have the time that Slurm gives them (KillWait)."""
    return system.call(["scancel", *(task.id for task in tasks)])
