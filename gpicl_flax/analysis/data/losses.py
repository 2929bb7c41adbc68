"""The training loss of every run over its steps, thinned to what a figure can show."""

import pandas as pd

from gpicl_flax.analysis.data.one_run import OneRun

_MOST = 400  # points of a run


def thinned(run: OneRun) -> pd.DataFrame:
    """Returns run_id, step, loss_ema: the average of the training loss (see `records.plateau`) at up to 400 steps, in nats.

    Runs of the same settings tell it at the same steps, as far as they have come.
    """
    steps, ema = run.metrics.index.to_numpy(int), run.metrics["loss_ema"].to_numpy(float)
    total = run.run_info.get("steps")
    every = max(total // _MOST, 1) if isinstance(total, int) else 1
    place = pd.Series(-(-steps // every))  # of a window of `every` steps the last logged one
    kept = ~place.duplicated(keep="last").to_numpy()
    return pd.DataFrame({"run_id": run.run_id, "step": steps[kept], "loss_ema": ema[kept]})
