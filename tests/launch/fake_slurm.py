"""Slurm's commands for tests, in this process: jobs that wait, until a test says otherwise."""

import dataclasses
import pathlib

from gpicl_flax.launch.system import Answer


@dataclasses.dataclass
class Job:
    """A task of a job array."""

    number: int
    shard: int
    name: str
    comment: str
    script: str
    state: str = "PENDING"


class Slurm:
    """Answers sbatch, squeue and scancel, and keeps the calls.

    Attributes:
      jobs: the tasks that wait or run.
      errors: program -> what it complains about.
    """

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.jobs: list[Job] = []
        self.errors: dict[str, str] = {}
        self.submitted = 0

    def __call__(self, words: list[str]) -> Answer:
        self.calls.append(words)
        if words[0] in self.errors:
            return Answer(1, "", self.errors[words[0]])
        return getattr(self, f"_{words[0]}")(words[1:])

    def _sbatch(self, argv: list[str]) -> Answer:
        *options, script = argv
        given = dict(word.removeprefix("--").partition("=")[::2] for word in options)
        self.submitted += 1
        for part in given["array"].partition("%")[0].split(","):
            first, _, last = part.partition("-")
            for shard in range(int(first), int(last or first) + 1):
                text = pathlib.Path(script).read_text()
                self.jobs.append(Job(self.submitted, shard, given["job-name"], given["comment"], text))
        return Answer(0, f"{self.submitted};cluster", "")

    def _squeue(self, argv: list[str]) -> Answer:
        [name] = [word.removeprefix("--name=") for word in argv if word.startswith("--name=")]
        found = [job for job in self.jobs if job.name == name]
        rows = (f"{job.number}\t{job.shard}\t{job.state}\t(Priority)\t{job.comment}" for job in found)
        return Answer(0, "\n".join(rows), "")

    def _scancel(self, ids: list[str]) -> Answer:
        self.jobs = [job for job in self.jobs if f"{job.number}_{job.shard}" not in ids]
        return Answer(0, "", "")
