"""The command `gpicl check_scaling`: whether activations keep their size when a model grows."""

import argparse
import json

from gpicl_flax.cli import console, outputs
from gpicl_flax.errors import UsageError
from gpicl_flax.runtime import backend

# Imports inside the command keep `gpicl --help` instant.

TOLERANCE_HELP = "the largest mean slope of a layer, up or down, that counts as flat (default 0.35)"


def add(commands) -> None:
    """Adds `check_scaling` to the subparsers of `gpicl`."""
    parser = commands.add_parser(
        "check_scaling",
        help="check a parametrisation: train several widths for a few steps and compare the sizes of activations",
        description="The coordinate check of muP. Trains the model of a run at several widths, or depths, for 8 steps "
        "on its own tasks, and prints how large the activations of each layer are and how fast their changes grow with "
        "the width: the slope of log change against log width after 1, 2, 4 and 8 steps. Slopes near 0 are flat: "
        "hyperparameters of one width can fit the others. Nothing is kept of the runs.",
    )
    parser.set_defaults(command=_check_scaling)
    console.add_gin(parser, required=True)
    parser.add_argument(
        "--widths",
        type=_sizes,
        metavar="N,N,...",
        help="widths, in units of the model's own setting (model_size of a Transformer; default: 1, 2, 4 and 8 times "
        "the base width, which is the model's own if it has none)",
    )
    parser.add_argument(
        "--depths", type=_sizes, metavar="N,N,...", help="numbers of blocks; without --widths, these alone are checked"
    )
    parser.add_argument(
        "--parametrization",
        choices=("standard", "mup", "both"),
        default="mup",
        help="what is checked, whatever the gin file sets (default %(default)s)",
    )
    parser.add_argument(
        "--seeds", type=console.positive, default=2, metavar="N", help="runs at each size (default %(default)s)"
    )
    parser.add_argument("--tolerance", type=float, metavar="SLOPE", help=TOLERANCE_HELP)
    parser.add_argument("--output", metavar="FILE", help="draw the changes there: a .png, .svg or .pdf")
    parser.add_argument("--json", action="store_true", help="print sizes, slopes and verdicts as one line of JSON")


def _sizes(text: str) -> list[int]:
    return [console.positive(part.strip()) for part in text.split(",")]


def _check_scaling(arguments: argparse.Namespace) -> None:
    from gpicl_flax.analysis.data import coordinates
    from gpicl_flax.models import scaling
    from gpicl_flax.runs import coordinate_check

    backend.check()
    _check_output(arguments.output)
    run = console.resolve_run(arguments)
    names = scaling.PARAMETRIZATIONS if arguments.parametrization == "both" else (arguments.parametrization,)
    axes = {coordinate_check.WIDTH: arguments.widths, coordinate_check.DEPTH: arguments.depths}
    if not any(axes.values()):
        axes[coordinate_check.WIDTH] = []
    rows = [
        row
        for axis, values in axes.items()
        if values is not None
        for row in coordinate_check.check(
            run, axis=axis, values=values, parametrizations=names, seeds=range(arguments.seeds)
        )
    ]
    found = coordinates.table(rows)
    slopes = coordinates.slopes(found)
    tolerance = coordinates.TOLERANCE if arguments.tolerance is None else arguments.tolerance
    verdicts = coordinates.verdicts(slopes, tolerance)
    if arguments.output is not None:
        from gpicl_flax.analysis.figures import coordinate_check as picture

        with console.figure_style():
            picture.draw(found).savefig(arguments.output)
    if arguments.json:
        tables = {"sizes": found, "slopes": slopes}
        plain = {name: json.loads(table.to_json(orient="records")) for name, table in tables.items()}
        print(json.dumps(plain | {"verdicts": [verdict._asdict() for verdict in verdicts]}))
        return
    print(coordinates.as_text(found, slopes))
    for verdict in verdicts:
        print(verdict.words)


def _check_output(output: str | None) -> None:
    if output is None:
        return
    if not output.endswith((".png", ".svg", ".pdf")):
        raise UsageError(f"--output {output}: the picture must be a .png, .svg or .pdf")
    if "://" in output:
        raise UsageError(f"--output {output}: the picture must be a local file")
    outputs.check_file(output)
