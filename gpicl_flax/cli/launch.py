"""The subcommands of `gpicl launch`. Each calls the room launch/."""

import argparse
from typing import NoReturn

from gpicl_flax.errors import UsageError

_SUBMIT = """
Runs every point of a sweep, and starts again what is preempted or killed, until all points have ended. Start the same
command again at any time: what is done is skipped, what runs is adopted, and only what is missing is submitted.

  launch/tpu_sweep.sh gin/state_size.gin --engine local --scale cpu --num_slices 2
  launch/tpu_sweep.sh gin/state_size.gin --project P --zone us-west4-a --accelerator_type v5litepod-16 --spot \\
      --num_slices 4 --workdir gs://BUCKET/state_size --dry_run
  gpicl launch sweep gin/state_size.gin --engine slurm --partition gpu --gres gpu:1 --time 8:00:00 --num_slices 8 \\
      --workdir /scratch/me/state_size --dry_run

What happens, in this order (--dry_run prints all of it and does nothing):
  1. The options and the gin files are checked. A mistake ends here, with exit code 2.
  2. The points are split into as many shards as --num_slices. Points are independent, so each shard has a slice, a job
     or a worker of its own, NAME-1, NAME-2, ...; all hosts of a slice train together.
  3. Slices: a wheel of this checkout goes to WORKDIR/.launch/package/, with the versions of everything it needs, and
     the prepared base datasets that the points read (`gpicl datasets needed` names them) to WORKDIR/.launch/data/. With
     --prepare_on_hosts the slices prepare those that are missing here.
  4. Slices: for each shard a queued resource is requested. Its start-up script runs on every host at every boot: it
     installs the package, copies the base datasets to the host's disk, ends what still holds the chips, and runs
     `gpicl sweep --shard i/N` until that has ended. Slurm: a job array is submitted, a task a shard.
  5. Slices: this command watches. A slice that is suspended, failed or gone before its shard has ended is deleted and
     requested again, and the runs go on from their last checkpoints. On GKE and Slurm it ends, and the cluster does
     the rest.
  6. The slice of a shard that has ended is deleted at once; on Ctrl-C all are (unless --keep). What a shard ended with
     is in WORKDIR/.launch/NAME-i.result, logs are beside it.
Let it run where it can stay for days: in tmux, or on a small virtual machine. Should it be killed, slices stay: start
it again, or use launch/delete.sh.

Costs: every chip of a slice is paid for while the slice is ACTIVE, idle or not; --spot is the cheaper tier, which can
be taken away at any time and loses at most the steps since the last checkpoint. `gpicl sweep --gin_file GIN --dry_run`
estimates the chip-hours. Waiting in the queue costs nothing.

GIN: gin files, here or among those that come with gpicl; later ones win. Files that do not come with gpicl, and what
they include, travel with the start-up script.
"""
_TRAIN = """
Trains one run, `gpicl train`, on all hosts of one slice, or in one job, and starts it again when it is preempted or
killed, until it is DONE. Start the same command again at any time: a run that is done is skipped, one that runs is
adopted. --workdir is the run folder. All else is as in `gpicl launch sweep`, whose --help explains what happens in
which order, and the costs. The slice is NAME-1.

  launch/tpu_train.sh gin/quickstart.gin --engine local --workdir runs/mine
  launch/tpu_train.sh gin/quickstart.gin --project P --zone us-west4-a --accelerator_type v5litepod-16 --spot \\
      --workdir gs://BUCKET/mine --dry_run
"""
_STATUS = """
Shows what a launch of the same --name has started: the state of the slices, JobSets, jobs or workers, and with
--workdir what their shards have ended with. With the gin files of the sweep, also the table of its runs, from the run
folders in --workdir.

  launch/status.sh --name state-size --project P --zone us-west4-a
  launch/status.sh gin/state_size.gin --workdir gs://BUCKET/state_size --project P --zone us-west4-a
  launch/status.sh gin/state_size.gin --scale cpu --engine local --workdir runs/state_size
"""
_DELETE = """
Deletes everything that launches of this --name have started: all slices NAME-1, NAME-2, ..., whoever has made them; on
GKE all JobSets; on Slurm all jobs; with --engine local all workers, which save first. Run folders are kept, so that the
same sweep can go on later. Nothing there is no error.

  launch/delete.sh state-size --project P --zone us-west4-a
  launch/delete.sh state-size --engine local --workdir runs/state_size --yes
"""
_END = """
Environment: every option is also read from GPICL_ and its name in capitals, GPICL_PROJECT say; the option wins. For
flags: yes or no. JAX_PLATFORMS reaches the workers of --engine local.

Exit codes: 0 all shards are done, or submitted, shown, deleted; 1 some failed; 2 wrong usage, and nothing was made;
130 Ctrl-C; 143 told to stop.
"""
_GIVEN = {
    "sweep": "a gin file, here or among those that come with gpicl; later ones win",
    "train": "a gin file, here or among those that come with gpicl; later ones win",
    "status": "the gin files of the sweep, for the table of its runs",
    "delete": "the name, as --name",
}
_HELP = {
    "sweep": ("run the points of a sweep on Cloud TPU slices, GKE, Slurm or this machine", _SUBMIT),
    "train": ("train one run there", _TRAIN),
    "status": ("show what runs, and what has ended", _STATUS),
    "delete": ("end what runs, and delete its slices", _DELETE),
}


class _Parser(argparse.ArgumentParser):
    """Takes gin files before, between and after options, and says what is wrong in one line, as other errors are."""

    _is_inside = False

    def parse_known_args(self, args=None, namespace=None):  # pyright: ignore[reportIncompatibleMethodOverride]
        if self._is_inside:  # called by parse_known_intermixed_args
            return super().parse_known_args(args, namespace)
        self._is_inside = True
        found, others = self.parse_known_intermixed_args(args, namespace)
        if others:
            self.error(f"unknown option {others[0]}")
        return found, []

    def error(self, message: str) -> NoReturn:
        self.exit(UsageError.exit_code, f"gpicl: error: {message} (--help lists all options)\n")


def add(commands) -> None:
    """Adds `launch` and its subcommands to the subparsers of `gpicl`."""
    from gpicl_flax.launch import options

    parser = commands.add_parser(
        "launch",
        help="run sweeps elsewhere: on Cloud TPU slices, GKE, Slurm, or as workers here",
        description="Runs sweeps and runs elsewhere, and looks after them.",
    )
    parser.set_defaults(compiles=False)  # nor do the processes that it starts inherit settings of its own
    subcommands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    for name in options.COMMANDS:
        short, text = _HELP[name]
        each = subcommands.add_parser(
            name,
            help=short,
            description=text.strip(),
            epilog=_END.strip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        each.add_argument("given", nargs="*", metavar="NAME" if name == options.DELETE else "GIN", help=_GIVEN[name])
        options.add(each, name)
        each.set_defaults(command=_run, launch=name)


def _run(arguments: argparse.Namespace) -> None:
    from gpicl_flax.launch import delete, options, status, submit, system

    machine, command, files = system.System(), arguments.launch, arguments.given
    given = dict(vars(arguments))
    if command == options.DELETE:
        names = {name for name in (*files, arguments.name) if name}
        if len(names) > 1:
            raise UsageError(f"one name at a time, not {' and '.join(sorted(names))}")
        given["name"], files = next(iter(names), None), []
    found = options.read(command, given, files, machine.environment)
    {options.STATUS: status.show, options.DELETE: delete.delete}.get(command, submit.submit)(found, machine)
