"""The engine for Cloud TPU VMs: keeps a slice alive for every shard until its result is there.

It holds no state that it could lose: what is done is read from markers in the working folder, and what exists from
gcloud.
"""

import dataclasses
import math
from collections.abc import Iterator

from gpicl_flax.errors import GpiclError, UsageError
from gpicl_flax.launch import gcloud, package, startup, storage
from gpicl_flax.launch.actions import Action, WriteFile, line
from gpicl_flax.launch.gcloud import ACTIVE, NONE, WAITING
from gpicl_flax.launch.plan import Plan
from gpicl_flax.launch.system import System
from gpicl_flax.launch.watch import LONG_LIFE, Phase, watch

_ERRORS_IN_A_ROW = 30  # of asking for one slice's state, before giving up
_FIRST_TRIES = 5
_DELETION_SECONDS = 300.0  # what --async began can fail unseen
_LAST_LINES = 20


@dataclasses.dataclass
class _Slice:
    """A shard, and what was seen of its slice last."""

    phase: Phase = Phase.NEW
    result: dict[str, str] = dataclasses.field(default_factory=dict)
    state: str = ""
    losses: int = 0
    errors: int = 0
    created: float = 0.0
    active: float = math.nan  # since when
    deleted: float = 0.0


def shown(plan: Plan, system: System) -> Iterator[Action]:
    """Yields what a run does, in its order."""
    del system  # nothing is asked
    assert plan.package is not None  # slices always have one
    first, *others = startup.scripts(plan)
    yield "# The package, the base datasets, and the start-up script of every slice"
    yield from package.upload(plan.package, is_built=False)
    for name, folder in plan.datasets.items():
        yield from storage.copy_folder(folder, f"{plan.store}/data/{name}")
    yield first
    for shard, script in enumerate(others, start=2):
        yield f"sed '2s/.*/SHARD={shard}/' {line([first.path])} > {line([script.path])}"
    yield "# A slice for each shard; again whenever one is suspended, failed or gone before its result is there"
    yield from (gcloud.creation(plan, shard) for shard in plan.shards)
    yield "# At the end of each shard, and on Ctrl-C" + (" (not with --keep)" if plan.options.keep else "")
    yield from (gcloud.deletion(plan.options, plan.id(shard)) for shard in plan.shards)


def run(plan: Plan, system: System) -> None:
    """Runs all shards to their end.

    Raises:
      UsageError: gcloud is missing, or a slice of the name does something else.
      GpiclError: some shards failed.
    """
    if system.path_of("gcloud") is None:
        raise UsageError("gcloud is not installed; https://cloud.google.com/sdk/docs/install")
    engine = _Engine(plan, system)
    system.listen()
    try:
        engine.begin()
        watch(system, plan.shards, engine, plan.options.poll_seconds or 30.0)
    finally:
        engine.say_what_is_left()
    engine.end()


class _Engine:
    """See `watch.Watched`."""

    def __init__(self, plan: Plan, system: System):
        self.plan, self.system, self.options = plan, system, plan.options
        self.slices = {shard: _Slice() for shard in plan.shards}
        self.scripts = startup.scripts(plan)
        self.is_prepared = False

    def begin(self) -> None:
        """Reads what an earlier call has left; only then is anything changed."""
        for look in (self._look_at_first, self._settle):
            for shard in self.slices:
                if self.system.stops:
                    self.stop()
                look(shard)

    def end(self) -> None:
        """Says how the shards have ended; raises GpiclError if some failed."""
        failed = f"{self._num_in(Phase.FAILED)} of {len(self.slices)} shards failed"
        kept = f"; slices are kept, {self._deletion} deletes them" if self.options.keep else ""
        self.system.say(f"{self._num_in(Phase.FINISHED)} of {len(self.slices)} shards done{kept}")
        if self._num_in(Phase.FAILED):
            raise GpiclError(failed)

    def _num_in(self, *phases: Phase) -> int:
        return sum(each.phase in phases for each in self.slices.values())

    @property
    def _deletion(self) -> str:
        where = f"--project {self.options.project} --zone {self.options.zone}"
        return f"launch/delete.sh --name {self.options.name} {where}"

    def stop(self) -> None:
        """Deletes what exists: slices cost money."""
        for shard, each in self.slices.items():
            if each.phase == Phase.EXISTS and self.options.keep:
                self._say(shard, f"kept (--keep); {self._deletion} deletes it")
            elif each.phase == Phase.EXISTS:
                self._say(shard, "deleting")
                if gcloud.delete(self.system, self.options, self.plan.id(shard)):
                    each.phase = Phase.DELETING
        self.system.stopped("interrupted; the same command goes on where this stopped")

    def say_what_is_left(self) -> None:
        """Warns of slices that live on, however this ends."""
        for shard, each in self.slices.items():
            if each.phase == Phase.EXISTS and not self.options.keep:
                self._warn(shard, f"is left; {self._deletion} deletes it")

    def _path(self, shard: int, ending: str) -> str:
        return f"{self.plan.store}/{self.plan.id(shard)}.{ending}"

    def _say(self, shard: int, text: str) -> None:
        self.system.say(f"{self.plan.id(shard)}: {text}")

    def _warn(self, shard: int, text: str) -> None:
        self.system.warn(f"{self.plan.id(shard)}: {text}")

    def _look_at_first(self, shard: int) -> None:
        each, name = self.slices[shard], self.plan.id(shard)
        each.created = self.system.now()
        each.result = storage.values(storage.read(self.system, self._path(shard, "result")))
        found = gcloud.look(self.system, self.options, name)
        for _ in range(_FIRST_TRIES - 1):
            if not found.state:
                self.system.wait(self.options.poll_seconds or 30.0)
                found = gcloud.look(self.system, self.options, name)
        if not found.state:
            raise GpiclError(f"gcloud does not say whether {name} exists: {found.error}")
        each.state = found.state
        submitted = storage.values(storage.read(self.system, self._path(shard, "submitted")))
        is_other = bool(submitted) and submitted.get("digest") != self.plan.digest
        if each.state != NONE and not self._is_done(each.result) and is_other:
            raise UsageError(
                f"{name} exists and was started with other arguments or other code; wait for it, delete it "
                f"({self._deletion}), or take another --name"
            )

    def _settle(self, shard: int) -> None:
        """Takes a result of the same payload as such, and removes any other; adopts a slice that is there."""
        each, marker = self.slices[shard], self._path(shard, "result")
        if self._is_done(each.result):
            self._say(shard, f"done already ({marker}; remove it to run again)")
            if each.state != NONE and not self.options.keep:
                self._delete(shard, "it is not needed any more")
            each.phase = Phase.FINISHED
            return
        if each.state != NONE:
            each.phase = Phase.EXISTS
            self._say(shard, f"there already, {each.state}")
            if self._is_ours(each.result):  # a slice that left a result has ended, and waits for nothing
                self._delete(shard, "its last try failed")
        if each.result:
            self.system.call(storage.remove(marker).words)

    def _is_ours(self, result: dict[str, str]) -> bool:
        return result.get("digest") == self.plan.digest

    def _is_done(self, result: dict[str, str]) -> bool:
        return self._is_ours(result) and result.get("exit_code") == "0"

    def advance(self, shard: int) -> bool:
        """See `watch.Watched`."""
        self._step(shard)
        return self.slices[shard].phase not in (Phase.FINISHED, Phase.FAILED)

    def _step(self, shard: int) -> None:
        each = self.slices[shard]
        if each.phase in (Phase.FINISHED, Phase.FAILED):
            return
        if each.phase == Phase.EXISTS and each.state not in WAITING:
            result = storage.values(storage.read(self.system, self._path(shard, "result")))
            if self._is_ours(result):
                self._finish(shard, result)
                return
        found = gcloud.look(self.system, self.options, self.plan.id(shard))
        if not found.state:
            each.errors += 1
            if each.errors == 1:
                self._warn(shard, f"{found.error}; asking again")
            if each.errors >= _ERRORS_IN_A_ROW:
                self._fail(shard, f"gcloud does not answer: {found.error}")
            return
        each.errors = 0
        match each.phase, found.state:
            case ((Phase.NEW | Phase.DELETING), gcloud.NONE):
                each.phase = Phase.NEW
                if self._num_in(Phase.EXISTS, Phase.DELETING) < self.plan.most:
                    self._create(shard)
            case Phase.DELETING, _:
                if self.system.now() - each.deleted > _DELETION_SECONDS:
                    self._delete(shard, "again")
            case Phase.NEW, state:
                each.phase = Phase.EXISTS
                self._say(shard, f"there already, {state}")
            case Phase.EXISTS, gcloud.NONE:
                if self._is_tried_again(shard, "is gone"):
                    each.phase = Phase.NEW
            case Phase.EXISTS, ("SUSPENDED" | "FAILED") as state:
                if self._is_tried_again(shard, f"is {state}"):
                    self._delete(shard, "to make it anew")
            case _:
                self._watch(shard, found.state)

    def _prepare(self) -> bool:
        """Puts what hosts need where they find it, once. Returns whether it did, and was not told to stop meanwhile."""
        if self.is_prepared:
            return True
        assert self.plan.package is not None  # slices always have one
        steps = package.upload(self.plan.package, is_built=package.is_built(self.plan.package))
        for name, folder in self.plan.datasets.items():
            target = f"{self.plan.store}/data/{name}"
            if not storage.is_copied(self.system, folder, target):
                steps += storage.copy_folder(folder, target)
        for step in (*steps, *self.scripts):
            if self.system.stops:
                return False
            self.system.do([step])
        self.is_prepared = True
        return True

    def _create(self, shard: int) -> None:
        each = self.slices[shard]
        if not self._prepare():
            return
        # So that a slice that does something else is not taken for this one.
        submitted = WriteFile(self.plan.folder / f"{self.plan.id(shard)}.submitted", f"digest={self.plan.digest}\n")
        try:
            self.system.do([submitted, *storage.copy_file(str(submitted.path), self._path(shard, "submitted"))])
        except GpiclError as error:
            self._fail(shard, str(error))
            return
        if self.system.stops:
            return
        each.phase = Phase.EXISTS  # from here on Ctrl-C has to delete it
        outcome, error = gcloud.create(self.system, self.plan, shard)
        each.created, each.active, each.state = self.system.now(), math.nan, ""
        if outcome == gcloud.REFUSED:
            self._fail(shard, error)
        elif outcome == gcloud.LATER:
            if self._is_tried_again(shard, f"could not be requested ({error})"):
                each.phase = Phase.NEW
        else:
            self._say(shard, "requested" if outcome == gcloud.CREATED else "there already")

    def _watch(self, shard: int, state: str) -> None:
        """Says what changes of a slice that is neither lost nor finished, and gives up on one that never comes."""
        each = self.slices[shard]
        if each.state != state:
            each.state = state
            self._say(shard, state)
        if state == ACTIVE:
            each.active = self.system.now() if math.isnan(each.active) else each.active
        elif math.isnan(each.active) and self.system.now() - each.created >= self.options.wait_seconds:
            self._fail(shard, f"not ACTIVE within {self.options.wait_seconds:g} seconds (--wait_seconds)")

    def _is_tried_again(self, shard: int, what: str) -> bool:
        """Counts a loss, unless the slice had lived long. Returns whether there were not too many in a row."""
        each, most = self.slices[shard], self.options.max_restarts
        each.losses = 1 if self.system.now() - each.active > LONG_LIFE else each.losses + 1
        if each.losses > most:
            self._fail(shard, f"{what}; lost {each.losses} times in a row (--max_restarts {most})")
            return False
        self._say(shard, f"{what}; trying again ({each.losses} of at most {most} times in a row)")
        return True

    def _finish(self, shard: int, result: dict[str, str]) -> None:
        if result.get("exit_code") == "0":
            self._say(shard, "done")
            self.slices[shard].phase = Phase.FINISHED
            self._release(shard)
            return
        self._fail(shard, f"gpicl ended with exit code {result.get('exit_code')}: {result.get('why')}")
        log = self._path(shard, "host0.log")
        last = (storage.read(self.system, log) or "").splitlines()[-_LAST_LINES:]
        self.system.show("\n".join([f"--- the end of {log}", *last, "---"]))

    def _fail(self, shard: int, why: str) -> None:
        self._warn(shard, why)
        self.slices[shard].phase = Phase.FAILED
        self._release(shard)

    def _release(self, shard: int) -> None:
        if self.options.keep:
            self._say(shard, "kept (--keep)")
        else:
            gcloud.delete(self.system, self.options, self.plan.id(shard))

    def _delete(self, shard: int, why: str) -> None:
        self._say(shard, f"deleting, {why}")
        self.slices[shard].phase, self.slices[shard].deleted = Phase.DELETING, self.system.now()
        gcloud.delete(self.system, self.options, self.plan.id(shard))
