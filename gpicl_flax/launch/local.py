"""The engine for this machine: one worker process a shard, started again when it dies.

Workers use the CPU backend unless JAX_PLATFORMS says otherwise.
"""

import dataclasses
import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil

from gpicl_flax.errors import GpiclError, UsageError
from gpicl_flax.launch import workers
from gpicl_flax.launch.actions import Action, command, line, word
from gpicl_flax.launch.options import SWEEP, Options
from gpicl_flax.launch.plan import PREINSTALLED, Plan, table_arguments
from gpicl_flax.launch.system import System
from gpicl_flax.launch.watch import LONG_LIFE, Phase, watch

_QUICK_DEATHS = 100  # by signals, each within _SHORT_LIFE of its start, before giving up
_SHORT_LIFE = 60.0
_LAST_LINES = 20
_UNKNOWN = None  # the exit code of a process that another call has started


@dataclasses.dataclass
class _Worker:
    """A shard, and the process that runs it."""

    phase: Phase = Phase.NEW
    process: psutil.Process | None = None
    child: subprocess.Popen | None = None  # the process, if this call has started it
    cores: list[int] = dataclasses.field(default_factory=list)  # that it has for itself
    started: float = 0.0
    failures: int = 0
    deaths: int = 0
    was_wrong_usage: bool = False


def gpicl(options: Options, system: System) -> str:
    """Returns the gpicl of the workers: that of this environment, or with `preinstalled` the one on PATH.

    Raises:
      UsageError: there is none.
    """
    if options.package not in (None, PREINSTALLED):
        raise UsageError(
            f"--package {options.package!r} is for slices; here gpicl is the one that runs this command, or with "
            f"{PREINSTALLED} the one on PATH"
        )
    own = pathlib.Path(sys.executable).with_name("gpicl")
    if options.package is None and own.is_file():
        return str(own)
    found = system.path_of("gpicl")
    if found is None:
        raise UsageError("there is no gpicl on PATH")
    return found


def shown(plan: Plan, system: System) -> Iterator[Action]:
    """Yields what a run does."""
    yield "# A worker for each shard, started again until it ends with 0 or 2, or too often with another code."
    yield "# Where taskset is, each has a share of the CPU cores for itself."
    folder = pathlib.Path(plan.store)
    yield command("mkdir", "-p", folder)
    settings = " ".join(f"{name}={word(value)}" for name, value in _environment(plan, system).items())
    for shard in plan.shards:
        worker = line([gpicl(plan.options, system), *plan.arguments(shard)])
        yield f"{settings} {worker} >> {word(workers.log_path(folder, plan.id(shard)))} 2>&1 &"


def _environment(plan: Plan, system: System) -> dict[str, str]:
    data = {"TFDS_DATA_DIR": plan.options.data_dir} if plan.options.data_dir else {}
    return {**data, "JAX_PLATFORMS": system.environment.get("JAX_PLATFORMS") or "cpu"}


def run(plan: Plan, system: System) -> None:
    """Runs all shards to their end.

    Raises:
      UsageError: there is no gpicl, or a shard ended with wrong usage.
      GpiclError: some shards failed.
    """
    engine = _Engine(plan, system)
    engine.folder.mkdir(parents=True, exist_ok=True)
    system.listen()
    for shard in plan.shards:
        engine.adopt(shard)
    watch(system, plan.shards, engine, plan.options.poll_seconds or 1.0)
    engine.end()


class _Engine:
    """See `watch.Watched`."""

    def __init__(self, plan: Plan, system: System):
        self.plan, self.system = plan, system
        self.gpicl = gpicl(plan.options, system)
        self.folder = pathlib.Path(plan.store)
        self.workers = {shard: _Worker() for shard in plan.shards}
        self.cores = workers.usable_cores()
        self.asked = 0  # how often workers were asked to stop

    def end(self) -> None:
        """Says how the shards have ended; raises if not all have."""
        if self.system.stops:
            self.system.stopped("stopped; the same command goes on where this stopped")
        if self.plan.options.command == SWEEP:
            answer = self.system.call([self.gpicl, *table_arguments(self.plan.options, self.plan.gin)])
            self.system.show(answer.output) if answer.code == 0 else self.system.warn("there is no table of the runs")
        phases = [each.phase for each in self.workers.values()]
        self.system.say(f"{phases.count(Phase.FINISHED)} of {len(phases)} shards done, in {self.plan.options.workdir}")
        failed = f"{phases.count(Phase.FAILED)} of {len(phases)} shards failed"
        if any(each.was_wrong_usage for each in self.workers.values()):
            raise UsageError(failed)
        if Phase.FAILED in phases:
            raise GpiclError(failed)

    def stop(self) -> None:
        """Asks workers to save at the first time, and ends them at the second."""
        if self.asked == min(self.system.stops, 2):
            return
        self.asked = min(self.system.stops, 2)
        if self.asked == 1:
            self.system.say("stopping; waiting for the workers to save (once more ends them at once)")
        for each in self.workers.values():
            if each.phase == Phase.EXISTS and each.process is not None:
                workers.tell(each.process, signal.SIGTERM if self.asked == 1 else signal.SIGKILL)

    def adopt(self, shard: int) -> None:
        """Takes a worker that an earlier call has left."""
        process = workers.live(self.folder, self.plan.id(shard))
        if process is not None:
            cores = workers.usable_cores(process.pid)
            self.workers[shard] = _Worker(Phase.EXISTS, process, cores=cores, started=self.system.now())
            self._say(shard, f"adopted, process {process.pid}")

    def advance(self, shard: int) -> bool:
        """See `watch.Watched`."""
        each = self.workers[shard]
        if each.phase == Phase.NEW and self.system.stops:
            each.phase = Phase.STOPPED
        elif each.phase == Phase.NEW:
            if sum(other.phase == Phase.EXISTS for other in self.workers.values()) < self.plan.most:
                self._start(shard)
        elif each.phase == Phase.EXISTS:
            self._look(shard)
        return each.phase in (Phase.NEW, Phase.EXISTS)

    def _start(self, shard: int) -> None:
        each, name = self.workers[shard], self.plan.id(shard)
        words = [self.gpicl, *self.plan.arguments(shard)]
        each.cores = self._own_cores()
        if each.cores and self.system.path_of("taskset"):
            words = ["taskset", "-c", ",".join(map(str, each.cores)), *words]
        environment = {**self.system.environment, **_environment(self.plan, self.system)}
        each.child = workers.start(self.folder, name, words, environment)
        each.process, each.phase, each.started = psutil.Process(each.child.pid), Phase.EXISTS, self.system.now()
        self._say(shard, f"process {each.child.pid}, log in {workers.log_path(self.folder, name)}")

    def _own_cores(self) -> list[int]:
        """Returns the CPU cores of a worker's own; none where there are not enough.

        Threads of one program wait for each other: two workers that share two cores took three times as long.
        """
        share = len(self.cores) // self.plan.most
        if self.plan.most == 1 or share == 0:
            return []
        taken = {core for each in self.workers.values() if each.phase == Phase.EXISTS for core in each.cores}
        slots = (self.cores[slot * share : (slot + 1) * share] for slot in range(self.plan.most))
        return next((slot for slot in slots if taken.isdisjoint(slot)), [])

    def _look(self, shard: int) -> None:
        """Sees whether a worker has ended, and how."""
        each, name = self.workers[shard], self.plan.id(shard)
        code = _UNKNOWN
        if each.child is not None:
            code = each.child.poll()
            if code is None:
                return
        elif workers.live(self.folder, name) is not None:
            return
        workers.pid_path(self.folder, name).unlink(missing_ok=True)
        if self.system.stops:
            each.phase = Phase.STOPPED
            self._say(shard, f"stopped (exit code {'unknown' if code is None else code})")
            return
        each.phase = Phase.NEW
        lived = self.system.now() - each.started
        each.failures = 0 if lived > LONG_LIFE else each.failures
        each.deaths = 0 if lived > _SHORT_LIFE else each.deaths
        self._ended(shard, code)

    def _ended(self, shard: int, code: int | None) -> None:
        each, most = self.workers[shard], self.plan.options.max_restarts
        if code is None:
            self._say(shard, "the adopted process has ended; starting again to see how")
        elif code == 0:
            each.phase = Phase.FINISHED
            self._say(shard, "done")
        elif code == UsageError.exit_code:
            each.was_wrong_usage = True
            self._give_up(shard, "wrong usage (exit code 2)")
        elif code == 42:
            self._say(shard, "preempted after saving; starting again")
        elif code < 0:
            each.deaths += 1
            if each.deaths > _QUICK_DEATHS:
                self._give_up(shard, f"killed by signal {-code}, {_QUICK_DEATHS} times in a row")
            else:
                self._say(shard, f"killed by signal {-code}; starting again")
        else:
            each.failures += 1
            text = f"failed with exit code {code}"
            if each.failures > most:
                self._give_up(shard, f"{text}, {each.failures} times in a row (--max_restarts {most})")
            else:
                self._say(shard, f"{text}; starting again ({each.failures} of at most {most} times)")

    def _give_up(self, shard: int, why: str) -> None:
        self.workers[shard].phase = Phase.FAILED
        self.system.warn(f"{self.plan.id(shard)}: {why}")
        log = workers.log_path(self.folder, self.plan.id(shard))
        last = log.read_text(errors="replace").splitlines()[-_LAST_LINES:]
        self.system.show("\n".join([f"--- the end of {log}", *last, "---"]))

    def _say(self, shard: int, text: str) -> None:
        self.system.say(f"{self.plan.id(shard)}: {text}")
