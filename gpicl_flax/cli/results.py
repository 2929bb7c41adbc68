"""The final output of `gpicl train` and `gpicl evaluate`."""

from gpicl_flax.cli import console
from gpicl_flax.runtime import distributed


def show(folder, evaluation=None) -> None:
    """Prints the results and draws the picture: of the run, or of an evaluation file with other settings."""
    if distributed.is_primary():
        from gpicl_flax.analysis.figures import learning_curve
        from gpicl_flax.analysis.report import run_summary
        from gpicl_flax.records import schemas
        from gpicl_flax.records.run_folder import read_json

        if evaluation is None or evaluation.name.count("_") == 1:
            values, picture = folder.latest_evaluation(), folder.learning_curve
        else:
            values, picture = read_json(evaluation, schemas.EVALUATION), evaluation.with_suffix(".png")
        with console.figure_style():
            learning_curve.save(folder, values, picture)
        print(f"{run_summary.summary(folder, values)}\n{picture}")
