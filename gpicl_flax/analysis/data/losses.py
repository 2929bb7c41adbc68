"""The training loss of every run over its steps, thinned to what a figure can show."""

import pandas as pd

from gpicl_flax.analysis.data.one_run import OneRun

_MOST = 400  # points of a run


def thinned(run: OneRun) -> pd.DataFrame:
    """Returns a table with the columns run_id, step and loss_ema, at up to 400 steps.

    loss_ema is the average of the training loss (see `records.plateau`), in nats. Runs with equal settings have it at
    the same steps, up to the last step of the shorter run.
    """
    steps, ema = run.metrics.index.to_numpy(int), run.metrics["loss_ema"].to_numpy(float)
    total = run.run_info.get("steps")
    every = max(total // _MOST, 1) if isinstance(total, int) else 1
    place = pd.Series(-(-steps // every))  # the last logged step of each window of `every` steps is kept
    kept = ~place.duplicated(keep="last").to_numpy()
    return pd.DataFrame({"run_id": run.run_id, "step": steps[kept], "loss_ema": ema[kept]})
