"""A gcloud for tests, in this process: scripted queued resources without hosts, and gs:// as a folder."""

import contextlib
import dataclasses
import io
import pathlib
import re
import shutil

from gpicl_flax.launch.system import Answer
from tests.launch.fakes import gcloud_storage
from tests.launch.fakes.gcloud_options import Options, verb_and_rest

GONE = "NOT_FOUND: Resource 'queuedResources/{}' was not found"
THERE = "ALREADY_EXISTS: Resource 'queuedResources/{}' already exists"


@dataclasses.dataclass
class Slice:
    """A queued resource.

    Attributes:
      states: those that it shows, one a look; the last one stays.
      ends: the exit code with which its shard ends once it is ACTIVE; None: it does not end.
      script: its start-up script.
    """

    states: list[str]
    ends: int | None
    script: str
    looks: int = 0
    state: str = "ACCEPTED"


class Gcloud:
    """Answers calls, and keeps them.

    Attributes:
      states: id -> the states of each creation.
      ends: id -> with what each creation ends, 0 after the last one.
      errors: verb -> a text for each call; None lets the call through.
      deletes_nothing: whether deletions stay without effect, as --async allows.
    """

    def __init__(self, folder: pathlib.Path):
        self.buckets = folder / "buckets"
        self.calls: list[list[str]] = []
        self.slices: dict[str, Slice] = {}
        self.scripts: dict[str, list[str]] = {}
        self.states: dict[str, list[list[str]]] = {}
        self.ends: dict[str, list[int | None]] = {}
        self.errors: dict[str, list[str | None]] = {}
        self.deletes_nothing = False

    def verbs(self, verb: str) -> list[str]:
        """Returns the ids of the slices that were to be created, deleted, ..., in order."""
        return [call[4] for call in self.calls if call[:4] == ["compute", "tpus", "queued-resources", verb]]

    def __call__(self, argv: list[str]) -> Answer:
        self.calls.append(argv)
        if argv[0] == "storage":
            return self._storage(argv[1:])
        verb, rest = verb_and_rest(argv)
        options = Options(verb, rest)
        errors = self.errors.get(verb, [])
        if errors and (error := errors.pop(0)):
            return Answer(1, "", f"ERROR: (gcloud.compute.tpus.queued-resources.{verb}) {error}")
        if verb in ("describe", "delete") and options.id not in self.slices:
            return Answer(1, "", f"ERROR: {GONE.format(options.id)}")
        return getattr(self, f"_{verb}")(options)

    def _storage(self, argv: list[str]) -> Answer:
        out = io.StringIO()
        try:
            with contextlib.redirect_stdout(out):
                gcloud_storage.main(self.buckets, argv)
        except SystemExit as error:
            return Answer(1, out.getvalue(), str(error).splitlines()[0])
        return Answer(0, out.getvalue().rstrip("\n"), "")

    def _create(self, options) -> Answer:
        name = options.id
        if name in self.slices:
            return Answer(1, "", f"ERROR: {THERE.format(name)}")
        key, _, path = options.metadata_from_file.partition("=")
        assert key == "startup-script" and options.node_id == name
        kept = self.scripts.setdefault(name, [])
        kept.append(pathlib.Path(path).read_text())
        states, ends = self.states.get(name, [["WAITING_FOR_RESOURCES", "ACTIVE"]]), self.ends.get(name, [])
        number = len(kept) - 1
        end = ends[number] if number < len(ends) else 0
        self.slices[name] = Slice(states[min(number, len(states) - 1)], end, kept[-1])
        return Answer(0, "", "")

    def _describe(self, options) -> Answer:
        assert options.format == "value(state.state)"
        found = self.slices[options.id]
        if found.state != "DELETING":
            found.state = found.states[min(found.looks, len(found.states) - 1)]
        found.looks += 1
        if found.state == "NONE":
            del self.slices[options.id]
            return Answer(1, "", f"ERROR: {GONE.format(options.id)}")
        if found.state == "ACTIVE" and found.ends is not None:
            self.end(options.id, found.ends)
        return Answer(0, found.state, "")

    def end(self, name: str, code: int) -> None:
        """Lets the shard of a slice end: writes what host 0 does."""
        script = self.slices[name].script
        workdir, digest = (re.search(rf"^{key}=(.*)$", script, re.M).group(1) for key in ("WORKDIR", "DIGEST"))
        folder = pathlib.Path(workdir.replace("gs:/", str(self.buckets))) / ".launch"
        folder.mkdir(parents=True, exist_ok=True)
        why = {0: "done", 2: "wrong usage"}.get(code, "failed 3 times in a row")
        result = f"exit_code={code}\ndigest={digest}\nfinished=now\nwhy={why}\n"
        (folder / f"{name}.result").write_text(result)
        (folder / f"{name}.host0.log").write_text(f"the log of {name}\n")

    def _delete(self, options) -> Answer:
        if self.deletes_nothing:
            self.slices[options.id].state = "DELETING"
        else:
            del self.slices[options.id]
        return Answer(0, "", "")

    def _list(self, options) -> Answer:
        return Answer(0, "\n".join(f"{name}\t{found.state}" for name, found in sorted(self.slices.items())), "")

    def _ssh(self, options) -> Answer:
        return Answer(0, f"the end of the log of {options.id}", "")

    def empty(self) -> None:
        shutil.rmtree(self.buckets)
