"""The command `gpicl profile`: where the time of a run's training steps goes."""

import argparse
import json
import pathlib

from gpicl_flax.cli import console, outputs
from gpicl_flax.errors import UsageError, brief
from gpicl_flax.runtime import backend

# Imports inside the command keep `gpicl --help` instant.

_SHOWN = 10
_LONGEST_PLACE = 70  # characters


def add(commands) -> None:
    """Adds `profile` to the subparsers of `gpicl`."""
    parser = commands.add_parser(
        "profile",
        help="trace some training steps and show the costliest kernels",
        description="Compiles the training step of a run, makes some steps by the clock and as many with the profiler "
        "of JAX, and prints steps a second and the ten costliest kernels. The trace opens in Perfetto and TensorBoard. "
        "Nothing is kept of the run. Steps are rounded up to whole dispatches (Training.steps_per_dispatch).",
        epilog="Kernels are those of the devices. Without an accelerator they are XLA's operations on the host's "
        "threads, and what several threads share is a call on each.",
    )
    parser.set_defaults(command=_profile)
    console.add_gin(parser, required=True)
    parser.add_argument(
        "--steps",
        type=console.positive,
        default=20,
        metavar="N",
        help="steps that are timed, and as many traced (default %(default)s)",
    )
    parser.add_argument(
        "--warmup",
        type=console.positive,
        default=1,
        metavar="N",
        help="steps before them (default %(default)s)",
    )
    parser.add_argument(
        "--output", required=True, metavar="FOLDER", help="local folder for the trace, new or empty; made if missing"
    )
    parser.add_argument("--json", action="store_true", help="print all kernels and figures as one line of JSON")


def _profile(arguments: argparse.Namespace) -> None:
    from gpicl_flax.runs import profile

    folder = _new_folder(arguments.output)
    backend.check()
    run = console.resolve_run(arguments)
    found = profile.profile(run, folder, steps=arguments.steps, warmup=arguments.warmup)
    if arguments.json:
        kernels = [kernel._asdict() for kernel in found.kernels]
        print(json.dumps(found._asdict() | {"kernels": kernels, "perfetto": str(found.perfetto)}))
    else:
        print(_as_text(found, arguments.output))


def _new_folder(output: str) -> pathlib.Path:
    """Returns the folder of the trace; raises UsageError if it has something in it, or cannot be made."""
    if "://" in output:
        raise UsageError(f"--output {output}: the trace must go to a local folder")
    outputs.check_folder(output)
    folder = pathlib.Path(output).expanduser()
    if folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"--output {output}: the folder is not empty; choose a new one")
    return folder


def _as_text(found, output: str) -> str:
    from gpicl_flax.terminal import text_table

    shown = found.kernels[:_SHOWN]
    rest = found.kernels[_SHOWN:]
    rows = [("kernel", "calls", "total ms", "share", "place")]
    rows += [
        (kernel.name, *_numbers(kernel.calls, kernel.milliseconds, kernel.share), brief(kernel.place, _LONGEST_PLACE))
        for kernel in shown
    ]
    if rest:
        sums = (sum(getattr(kernel, name) for kernel in rest) for name in ("calls", "milliseconds", "share"))
        rows.append((f"({len(rest):,} others)", *_numbers(*sums), ""))
    return "\n".join(
        [
            f"{found.model}, {found.num_devices} x {found.device}: {found.steps:,} steps in dispatches of "
            f"{found.steps_per_dispatch:,}, compiled in {found.compile_seconds:.1f} s",
            f"{found.steps_per_second:,.2f} steps/s, {found.traced_steps_per_second:,.2f} with the tracer",
            text_table.render(rows, right=(1, 2, 3)),
            f"{found.perfetto}: for https://ui.perfetto.dev; TensorBoard: tensorboard --logdir {output}",
        ]
    )


def _numbers(calls: int, milliseconds: float, share: float) -> tuple[str, str, str]:
    return f"{calls:,}", f"{milliseconds:,.2f}", f"{share:.1%}"
