"""The options of `gpicl launch`: their names, where they apply, and what their values must be.

Each is also read from the environment, as GPICL_ and its name in capitals. The command line wins. An option that is
given there for another engine is refused; in the environment it may be meant for another command.
"""

import argparse
import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gpicl_flax.errors import UsageError

SLICES, GKE, SLURM, LOCAL = ENGINES = ("queued-resources", "gke", "slurm", "local")
SWEEP, TRAIN, STATUS, DELETE = COMMANDS = ("sweep", "train", "status", "delete")
_SUBMIT, _LOOK = (SWEEP, TRAIN), (SWEEP, TRAIN, STATUS)
_CLOUD = (SLICES, GKE)


def _matching(pattern: str, words: str, convert: Callable[[str], Any] = str) -> Callable[[str], Any]:
    """Returns what converts the text of an option; raises ValueError, which says what it must be."""

    def read(text: str) -> Any:
        if not re.fullmatch(pattern, text):
            raise ValueError(words)
        return convert(text)

    return read


_positive = _matching("[1-9][0-9]{0,5}", "must be a positive integer", int)
_natural = _matching("[0-9]{1,6}", "must be an integer, 0 or more", int)
_seconds = _matching(r"[0-9]{1,7}(\.[0-9]{1,3})?", "must be a number of seconds", float)
_line = _matching(r"[^\x00-\x1f\x7f]+", "must be one line")
# Google Cloud, Kubernetes, Slurm and file names all take these, with room for a number behind them.
_name = _matching("[a-z]([-a-z0-9]{0,38}[a-z0-9])?",
                  "must be 1 to 40 of a-z, 0-9 and -, begin with a letter and not end with -")  # fmt: skip
_word = _matching("[A-Za-z0-9][-A-Za-z0-9._@:/]*", "must be a name")
_slurm = _matching(r"[A-Za-z0-9][-A-Za-z0-9._:/=,&|()*\[\]]*", "must be a word of Slurm, without spaces")
_duration = _matching("[0-9]+(-[0-9]+)?(:[0-9]+){0,2}", "must be like 60, 8:00:00 or 2-00")


def _option(
    default: Any,
    metavar: str,
    text: str,
    read: Callable[[str], Any] = str,
    *,
    commands: Sequence[str] = _SUBMIT,
    engines: Sequence[str] = ENGINES,
    group: str = "how",
) -> Any:
    """Returns the field of an option.

    Args:
      default: its value where it was not given.
      metavar: what stands for its value in the help; '' for a flag.
      text: its help.
      read: converts its text; raises ValueError, whose message says what it must be.
      commands: the commands that have it.
      engines: the engines with which it has an effect.
      group: the heading in the help.
    """
    about = {"metavar": metavar, "help": text, "read": read, "commands": commands, "engines": engines, "group": group}
    return dataclasses.field(default=default, metadata=about)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """The options of a command, with the defaults of those that were not given."""

    command: str
    gin_files: tuple[str, ...] = ()

    # fmt: off
    workdir: str = _option("", "FOLDER", "gs://BUCKET/FOLDER, or a folder that all hosts see; with --engine local a "
        "folder here (default: runs/ and the name of the gin file)", _line, commands=COMMANDS, group="what to run")
    scale: str | None = _option(None, "NAME", "adds gin/scale/NAME.gin as the last gin file: cpu, gpu, laptop",
        _matching("[A-Za-z0-9_]+", "must be a name, such as cpu"), commands=_LOOK, group="what to run")
    gin_bindings: tuple[str, ...] = _option((), "'A = B'", "one more binding; repeat it (in the environment: one a "
        "line)", commands=_LOOK, group="what to run")
    only: str | None = _option(None, "PATTERN", "only points whose run id contains what the shell pattern describes",
        commands=(SWEEP, STATUS), group="what to run")
    stack: str | None = _option(None, "auto|N|off", "as in gpicl sweep", _matching("auto|off|[1-9][0-9]*",
        "must be auto, off or a positive integer"), commands=(SWEEP,), group="what to run")
    package: str | None = _option(None, "SPEC", "a pip requirement instead of this checkout, or `preinstalled`: the "
        "gpicl on PATH; then gin files are not checked here, and no base datasets are brought", _line,
        engines=(SLICES, SLURM, LOCAL), group="what to run")
    data_dir: str | None = _option(None, "FOLDER", "where prepared base datasets are here (default: $TFDS_DATA_DIR or "
        "~/tensorflow_datasets); on GKE in the container. Points that bind TaskDistribution.data_dir read from there, "
        "and nothing is brought for them", _line, group="what to run")
    prepare_on_hosts: bool = _option(False, "", "the hosts download and prepare official base datasets that are "
        "missing here, once a slice; they need a network", engines=(SLICES,), group="what to run")

    engine: str = _option(SLICES, "E", "queued-resources (default), gke, slurm, local", commands=COMMANDS,
        group="where")
    name: str = _option("", "NAME", "of the slices or jobs, without the number (default: from the gin file)", _name,
        commands=COMMANDS, group="where")
    project: str | None = _option(None, "ID", "of Google Cloud", _matching("[a-z0-9][-a-z0-9.:]+",
        "cannot be the id of a project"), commands=COMMANDS, engines=_CLOUD, group="where")
    zone: str | None = _option(None, "ZONE", "of Google Cloud", _matching("[a-z]+[-a-z0-9]+",
        "must be like us-central2-b"), commands=COMMANDS, engines=_CLOUD, group="where")
    accelerator_type: str | None = _option(None, "T", "v5litepod-16, v6e-16 (chips), v4-16, v5p-16 (cores, two a "
        "chip)", engines=_CLOUD, group="where")
    runtime_version: str | None = _option(None, "V", "of the hosts (default: the one for the accelerator type)", _word,
        engines=(SLICES,), group="where")
    num_slices: int = _option(1, "N", "shards, each with a slice, a job or a worker of its own (default 1)", _positive,
        commands=(SWEEP,), group="where")
    max_parallel: int | None = _option(None, "N", "shards that run at once (default: all)", _positive,
        commands=(SWEEP,), engines=(SLICES, GKE, LOCAL), group="where")
    spot: bool = _option(False, "", "the cheaper tier", engines=_CLOUD, group="where")
    network: str | None = _option(None, "N", "of the slices", _word, engines=(SLICES,), group="where")
    subnetwork: str | None = _option(None, "N", "of the slices", _word, engines=(SLICES,), group="where")
    service_account: str | None = _option(None, "A", "of the slices; on GKE that of Kubernetes, with access to the "
        "working folder", _word, engines=_CLOUD, group="where")
    coordinator_port: int | None = _option(None, "N", "of jax.distributed, where a firewall blocks the usual one",
        _positive, engines=_CLOUD, group="where")

    dry_run: bool = _option(False, "", "print every command, as it would be run, and what it is given; make nothing",
        commands=(*_SUBMIT, DELETE))
    keep: bool = _option(False, "", "delete no slice, not at the end and not on Ctrl-C", engines=(SLICES,))
    max_restarts: int = _option(10, "N", "in a row, of what is lost and of a gpicl that fails (default 10); "
        "preemptions after saving (exit code 42) do not count", _natural)
    wait_seconds: float = _option(math.inf, "S", "give a slice up that is not ACTIVE within S seconds (default: wait "
        "for ever)", _seconds, engines=(SLICES,))
    poll_seconds: float | None = _option(None, "S", "between two looks (default 30; local: 1)", _seconds,
        engines=(SLICES, LOCAL))
    restart_seconds: float = _option(5.0, "S", "before gpicl is started again on a host, doubled with each failure in "
        "a row (default 5)", _seconds, engines=(SLICES, SLURM))
    log: bool = _option(False, "", "show the end of the log of host 0 of every ACTIVE slice, by ssh",
        commands=(STATUS,), engines=(SLICES,))
    yes: bool = _option(False, "", "do not ask (needed where nobody can answer)", commands=(DELETE,))

    image: str | None = _option(None, "IMAGE", "a container image that has gpicl", _word, engines=(GKE,), group="GKE")
    cluster: str | None = _option(None, "NAME", "of --project and --zone (default: kubectl's current context)", _name,
        commands=COMMANDS, engines=(GKE,), group="GKE")
    namespace: str = _option("default", "NAME", "(default: default)", _name, commands=COMMANDS, engines=(GKE,),
        group="GKE")
    queue: str = _option("gpicl", "NAME", "the LocalQueue; made, with a quota of --max_parallel slices, where it is "
        "missing (default: gpicl)", _name, engines=(GKE,), group="GKE")

    partition: str | None = _option(None, "P", "as in sbatch", _slurm, engines=(SLURM,), group="Slurm")
    account: str | None = _option(None, "A", "as in sbatch", _slurm, engines=(SLURM,), group="Slurm")
    qos: str | None = _option(None, "Q", "as in sbatch", _slurm, engines=(SLURM,), group="Slurm")
    gres: str | None = _option(None, "G", "generic resources of a node, such as gpu:1", _slurm, engines=(SLURM,),
        group="Slurm")
    constraint: str | None = _option(None, "C", "features of a node, as in sbatch", _slurm, engines=(SLURM,),
        group="Slurm")
    time: str | None = _option(None, "T", "the time limit of a job: minutes, or days-hours:minutes:seconds", _duration,
        engines=(SLURM,), group="Slurm")
    nodes: int = _option(1, "N", "that train one shard together (default 1)", _positive, engines=(SLURM,),
        group="Slurm")
    cpus_per_task: int | None = _option(None, "N", "CPU cores of a shard on a node", _positive, engines=(SLURM,),
        group="Slurm")
    grace_seconds: int = _option(120, "S", "between the signal to save and the time limit (default 120)", _positive,
        engines=(SLURM,), group="Slurm")
    array_limit: int | None = _option(None, "N", "tasks of the job array that run at once (default: all)", _positive,
        commands=(SWEEP,), engines=(SLURM,), group="Slurm")
    setup: str | None = _option(None, "C", "what jobs run first: a file of shell commands, or one, such as 'module "
        "load cuda'; a job ends where it fails", engines=(SLURM,), group="Slurm")
    # fmt: on

    def need(self, name: str, why: str = "") -> None:
        """Raises UsageError if an option was not given."""
        if not getattr(self, name):
            words = f" {why}" if why else ""
            raise UsageError(f"--{name} is needed{words} (or GPICL_{name.upper()} in the environment)")


_FIELDS = {field.name: field for field in dataclasses.fields(Options) if field.metadata}


def add(parser: argparse.ArgumentParser, command: str) -> None:
    """Adds the options of a command to its parser."""
    groups: dict[str, argparse._ArgumentGroup] = {}
    for name, field in _FIELDS.items():
        about = field.metadata
        if command not in about["commands"]:
            continue
        if about["group"] not in groups:
            groups[about["group"]] = parser.add_argument_group(about["group"])
        action = "append" if name == "gin_bindings" else "store"
        kind: Any = {"action": action, "metavar": about["metavar"]} if about["metavar"] else {"action": "store_true"}
        groups[about["group"]].add_argument(f"--{name}", help=about["help"], default=None, **kind)


def read(command: str, given: Mapping[str, Any], gin_files: Sequence[str], environment: Mapping[str, str]) -> Options:
    """Returns the options of a command.

    Args:
      command: one of COMMANDS.
      given: texts from the command line, by the names of options; None where there is none.
      gin_files: those of the command line.
      environment: GPICL_PROJECT and so on.

    Raises:
      UsageError: an option has a wrong value, or no effect with this engine.
    """
    values: dict[str, Any] = {}
    for name, field in _FIELDS.items():
        text, told = given.get(name), environment.get(f"GPICL_{name.upper()}") or None
        if command not in field.metadata["commands"] or text is None and told is None:
            continue
        if name == "gin_bindings":
            values[name] = (*(told.split("\n") if told else ()), *(text or ()))
        elif not field.metadata["metavar"]:
            values[name] = bool(text) or _is_yes(name, told)
        else:
            values[name] = _value(name, text if text is not None else told or "")
    engine = values.get("engine", SLICES)
    if engine not in ENGINES:
        raise UsageError(f"--engine must be {', '.join(ENGINES[:-1])} or {LOCAL}, not {engine!r}")
    for name in [name for name in values if engine not in _FIELDS[name].metadata["engines"]]:
        if given.get(name) is not None:
            raise UsageError(
                f"--{name} is for --engine {' and '.join(_FIELDS[name].metadata['engines'])}, not {engine}"
            )
        del values[name]
    return Options(command=command, gin_files=tuple(gin_files), **values)


def _is_yes(name: str, text: str | None) -> bool:
    if text not in (None, "0", "1", "no", "yes", "false", "true"):
        raise UsageError(f"GPICL_{name.upper()} must be yes or no, not {text!r}")
    return text in ("1", "yes", "true")


def _value(name: str, text: str) -> Any:
    if not text:
        raise UsageError(f"--{name} needs a value")
    try:
        return _FIELDS[name].metadata["read"](text)
    except ValueError as error:
        raise UsageError(f"--{name} {error}, not {text!r}") from None
