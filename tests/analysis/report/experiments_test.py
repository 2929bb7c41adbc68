"""Runs of the paper's experiments, with the gin files of the cpu scale, make the figures of these experiments."""

import pytest

from gpicl_flax.analysis.data import study
from gpicl_flax.analysis.figures import (
    fig02_memorization,
    fig03_within_sequence,
    fig04_learning_phases,
    fig05_final_losses,
    fig06_size_predictors,
    fig06_state_size,
    fig07_loss_over_steps,
    fig08_phases_by_batch_size,
    fig08_plateau_scaling,
    fig14_sequence_length,
    fig20_weight_decay,
    fig21_vsml_layers,
    table2_methods,
)
from gpicl_flax.config import parse
from gpicl_flax.runs.run import Run
from gpicl_flax.sweep import grid

FIGURES = {
    "fig2": [fig02_memorization],
    "fig3": [fig03_within_sequence],
    "fig4": [fig04_learning_phases],
    "fig5": [fig05_final_losses],
    "fig6": [fig06_state_size, fig06_size_predictors],
    "fig7": [fig07_loss_over_steps],
    "fig8": [fig08_phases_by_batch_size, fig08_plateau_scaling],
    "fig9": [fig07_loss_over_steps],
    "fig14": [fig14_sequence_length],
    "fig19": [fig08_plateau_scaling],
    "fig20": [fig20_weight_decay],
    "fig21": [fig21_vsml_layers],
    "table2": [table2_methods],
    "parameter_count": [fig06_state_size, fig06_size_predictors],
}


QUICK = ["fig2", "table2"]  # the others draw the same kinds of figures


@pytest.fixture
def load(make_run, make_curve, tmp_path):
    """Name of a gin file -> a study of its runs, in which nothing was computed."""

    def write(name):
        for number, point in enumerate(grid.points(parse([f"gin/{name}.gin", "gin/scale/cpu.gin"]))):
            run, operative = point.config.resolve(Run)
            tasks, own = run.tasks, run.tasks.base_dataset
            curves = [make_curve("seen"), *(make_curve("unseen", x, last=0.3 + 0.01 * number) for x in run.test_names)]
            folder = make_run(
                tmp_path / point.run_id,
                left_at=10 * (1 + number % 9),
                evaluations={step: curves for step in ((50, 100) if run.meta_test.at_checkpoints else (100,))},
                config=point.config.text,
                labels=dict(run.labels),
                model=type(run.model).__name__,
                **run.sizes(),
                sequence_length=tasks.sequence_length,
                task_batch_size=tasks.task_batch_size,
                num_tasks=tasks.num_tasks,
                permute_labels_prob=tasks.permute_labels_prob,
                seed=run.seed,
                base_dataset={"name": own},
            )
            folder.operative_config.write_text(operative)
        return study.load(tmp_path)

    return write


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in FIGURES]
)
def test_runs_of_an_experiment_make_its_figures(name, load):
    of = load(name)
    for figure in FIGURES[name]:
        chart = figure.draw(of)
        assert chart.figure is not None, chart.caption
        # An experiment has one setting in each of its panels; what else varies is on its axes.
        assert "left out" not in chart.caption
