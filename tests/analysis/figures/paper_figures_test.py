"""The figures of the paper by what they draw and by their numbers, and what they say when runs are missing."""

import math

import numpy as np
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
    fig09_gradient_dynamics,
    fig10_pretrained_features,
    fig14_sequence_length,
    fig15_adam_moments,
    fig17_tensor_gradients,
    fig20_weight_decay,
    fig21_vsml_layers,
    table2_methods,
)

FIGURES = {
    fig02_memorization: "at least two numbers of tasks",
    fig03_within_sequence: "at least two examples",
    table2_methods: "at least two models",
    fig04_learning_phases: "at least two numbers of tasks",
    fig05_final_losses: "8 seeds",
    fig06_state_size: "at least two state sizes",
    fig06_size_predictors: "6 configurations",
    fig07_loss_over_steps: "MetaTest.at_checkpoints",
    fig08_phases_by_batch_size: "at least two batch sizes",
    fig08_plateau_scaling: "at least two batch sizes",
    fig09_gradient_dynamics: "Training.telemetry",
    fig10_pretrained_features: "frozen features",
    fig14_sequence_length: "at least two sequence lengths",
    fig15_adam_moments: "Training.telemetry",
    fig17_tensor_gradients: "Training.telemetry",
    fig20_weight_decay: "at least two weight decays",
    fig21_vsml_layers: "at least two numbers of layers",
}


@pytest.fixture
def load(make_run, tmp_path):
    """Writes runs, each a dict of what `make_run` takes, and reads them as a study."""

    def write(*each):
        for index, run_info in enumerate(each):
            make_run(tmp_path / f"run{index:03}", **run_info)
        return study.load(tmp_path)

    return write


def texts(items):
    return [item.get_text() for item in items]


def labels(figure):
    return texts(figure.legends[0].get_texts())


def drawn(axes, label):
    """The points of the line of that label; those of an error bar as well."""
    lines = {line.get_label(): line for line in axes.get_lines()}
    lines |= {bar.get_label(): bar[0] for bar in axes.containers}
    return lines[label].get_xdata(orig=False), lines[label].get_ydata(orig=False)


@pytest.mark.parametrize("figure", FIGURES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_what_a_figure_lacks_is_one_line(figure, load, make_run, make_curve, tmp_path):
    """Runs that have begun, that diverged, without facts or with too few, without evaluations."""
    make_run(tmp_path / "no_facts").run_info.unlink()
    evaluations = {step: [make_curve("unseen")] for step in (50, 100)}
    make_run(tmp_path / "few_facts", model=None, num_classes=None, ended=None, evaluations=evaluations)
    of = load(
        {"ended": None, "num_tasks": 16, "steps": 0, "evaluations": {}},
        {"ended": "DIVERGED", "num_tasks": 256, "model": "LSTM", "left_at": None},
        {"evaluations": {}, "left_at": None, "diagnostics_period": None, "num_tasks": 16},
    )
    chart = figure.draw(of)
    assert chart.figure is None and chart.paper
    assert chart.caption.startswith("Needs ") and FIGURES[figure] in chart.caption and "\n" not in chart.caption


def widths(make_curve, *cells):
    """Runs of Transformers and MLPs, by (model, width, number of tasks, accuracy on unseen tasks)."""
    for seed, (model, width, num_tasks, last) in enumerate(cells):
        name = {"Transformer": "model_size", "MLP": "hidden_size"}[model]
        yield {
            "model": model, "num_tasks": num_tasks, "seed": seed, "parameters": width,
            "settings": {"Run.model": f"@{model}()", f"{model}.{name}": width, "Run.seed": seed},
            "evaluations": {100: [make_curve("seen", last=0.9), make_curve("unseen", last=last)]},
        }  # fmt: skip


def test_a_heat_map_has_a_cell_for_every_size_and_number_of_tasks(load, make_curve):
    cells = [("Transformer", 2, 1, 0.1), ("Transformer", 512, 1, 0.2), ("Transformer", 512, 2**16, 0.7)]
    of = load(*widths(make_curve, *cells, ("Transformer", 512, 2**16, 0.5), ("MLP", 8, 1, 0.1)))
    table = fig02_memorization.numbers(of).query("tasks == 'unseen' and model == 'Transformer'")
    found = table.set_index(["width", "num_tasks"])["mean"].to_dict()
    assert found == {(2, 1): 0.1, (512, 1): 0.2, (512, 2**16): pytest.approx(0.6)}
    chart = fig02_memorization.draw(of)
    seen, unseen = chart.figure.axes[:2]  # the MLP has one size
    assert (seen.get_title(), unseen.get_title()) == ("Transformer: seen tasks", "Transformer: unseen tasks")
    (mesh,) = unseen.collections
    np.testing.assert_allclose(mesh.get_array().filled(-1), [[0.1, 0.2], [-1, 0.6]])
    (hatched,) = unseen.patches
    assert hatched.get_xy() == (0, 1)  # 2 wide, 2^16 tasks
    assert texts(unseen.get_xticklabels()) == ["2", "512"] and texts(unseen.get_yticklabels()) == ["1", "$2^{16}$"]


def test_a_heat_map_leaves_out_runs_that_have_not_ended(load, make_curve):
    runs = list(widths(make_curve, ("MLP", 2, 1, 0.1), ("MLP", 4, 1, 0.1), ("MLP", 2, 4, 0.1)))
    of = load(*runs, *({**run, "ended": None} for run in widths(make_curve, ("MLP", 4, 4, 0.9))))
    assert len(fig02_memorization.draw(of).figure.axes[1].patches) == 1


def test_accuracy_within_a_sequence(load, make_curve):
    evaluation = {100: [make_curve("seen"), make_curve("unseen", last=0.5), make_curve("unseen", "other", last=0.4)]}
    lower = {100: [make_curve("seen"), make_curve("unseen", last=0.3), make_curve("unseen", "other", last=0.4)]}
    more = {"base_dataset": {"name": "other"}, "evaluations": evaluation}
    of = load({"evaluations": evaluation}, {"evaluations": lower, "seed": 1}, more)
    chart = fig03_within_sequence.draw(of)
    digits, other = chart.figure.axes
    assert (digits.get_title(), other.get_title()) == ("trained on digits", "trained on other")
    positions, accuracy = drawn(digits, "unseen tasks, digits")
    np.testing.assert_array_equal(positions, range(5))
    np.testing.assert_allclose(accuracy, np.linspace(0.1, 0.4, 5))
    assert "seen tasks, digits" not in [line.get_label() for line in other.get_lines()]
    last = chart.numbers.query("position == 4 and tasks == 'unseen'").set_index(["base_dataset", "test_dataset"])
    assert last.loc[("digits", "digits"), "runs"] == 2
    margin = 12.7062 * math.sqrt(2 * 0.1**2 / 1) / math.sqrt(2)  # Student's quantile of one degree of freedom
    assert last.loc[("digits", "digits"), "high"] == pytest.approx(0.4 + margin, abs=1e-4)
    assert last.loc[("other", "other"), ["low", "high"]].tolist() == pytest.approx([0.35, 0.45])  # of its sequences


def test_a_run_that_has_not_ended_is_shown_at_its_last_meta_test(load, make_curve):
    evaluations = {100: [make_curve("unseen", last=0.3)], 200: [make_curve("unseen", last=0.6)]}
    one = {"evaluations": evaluations, "steps": 1000, "ended": None}
    of = load(
        {"evaluations": {1000: [make_curve("unseen", last=0.8)]}, "steps": 1000}, one, {**one, "ended": "DIVERGED"}
    )
    done, under_way = fig03_within_sequence.draw(of).figure.axes
    assert under_way.get_title() == "trained on digits\nafter 200 of 1,000 steps"
    assert drawn(under_way, "unseen tasks, digits")[1][-1] == pytest.approx(0.6)
    assert drawn(done, "unseen tasks, digits")[1][-1] == pytest.approx(0.8)


def test_panels_are_in_the_order_of_their_numbers(load, make_curve):
    evaluation = {100: [make_curve("unseen")]}
    config = "Run.model = @Transformer()\nTransformer.key_size = {}"
    of = load(*({"evaluations": evaluation, "config": config.format(size)} for size in (16, 4, 1)))
    titles = [axes.get_title() for axes in fig03_within_sequence.draw(of).figure.axes]
    assert [title.split()[-1] for title in titles] == ["1", "4", "16"]


def by_tasks(make_curve, *points, **run_info):
    """Runs by their number of tasks and their accuracies.

    These are the first and last on seen tasks, the last on unseen tasks, and that on another base dataset.
    """
    for num_tasks, first, seen, unseen, other in points:
        curves = [make_curve("seen", first=first, last=seen), make_curve("unseen", last=unseen)]
        yield {
            "num_tasks": num_tasks,
            "evaluations": {100: [*curves, make_curve("unseen", "other", last=other)]},
        } | run_info


PHASES = [(1, 0.9, 0.95, 0.1, 0.1), (16, 0.2, 0.8, 0.15, 0.1), (2**13, 0.1, 0.7, 0.6, 0.5), (None, 0.1, 0.1, 0.1, 0.1)]


def test_phases_of_learning_are_told_by_gains(load, make_curve):
    of = load(*by_tasks(make_curve, *PHASES))
    found = fig04_learning_phases.behaviours(of)
    assert found["behaviour"].tolist()[:3] == [
        "task memorization",
        "task identification",
        "general learning to learn",
    ]
    assert found["behaviour"].isna().tolist() == [False, False, False, True]  # on its plateau
    chart = fig04_learning_phases.draw(of)
    (axes,) = chart.figure.axes
    at, gains = drawn(axes, "unseen tasks, other")
    np.testing.assert_allclose(at[:3], [0, 4, 13])
    np.testing.assert_allclose(gains, [0, 0, 0.4, 0], atol=1e-12)
    assert drawn(axes, "seen tasks, digits")[1][0] == pytest.approx(0.05)
    spans = [patch.get_x() for patch in axes.patches]
    np.testing.assert_allclose(spans, [-0.5, 2, 8.5])
    assert texts(axes.get_xticklabels()) == ["1", "$2^{4}$", "$2^{13}$", "unbounded"]
    assert labels(chart.figure)[-3:] == list(fig04_learning_phases.BEHAVIOURS)
    assert chart.ours == {"tasks_to_generalize": "2^13 tasks at the fewest"}


def test_losses_over_the_training(load, make_curve):
    def evaluations(loss):
        steps = {step: loss + step / 1000 for step in (50, 100)}
        return {step: [make_curve("seen", loss=1.5), make_curve("unseen", loss=x)] for step, x in steps.items()}

    first, second = {"evaluations": evaluations(2.2)}, {"evaluations": evaluations(2.3), "seed": 1, "ended": None}
    chart = fig07_loss_over_steps.draw(load(first, second))
    whole, zoom = chart.figure.axes
    np.testing.assert_allclose(drawn(whole, "unseen tasks, digits"), [[50, 100], [2.3, 2.35]])
    np.testing.assert_allclose(drawn(whole, "training"), [range(10, 101, 10), [2.25] * 4 + [1.5] * 6])
    assert zoom.get_ylim() == pytest.approx((2.25, 2.40))

    def length(**run_info):
        biased = first | {"permute_labels_prob": 0.1, "left_at": 30, "unseen_left_at": 20}
        return fig07_loss_over_steps.draw(load(first | run_info, biased)).ours["plateau_steps"]  # a bias ends it early

    assert length(unseen_left_at=80) == "80 steps, by the loss on unseen tasks"
    assert length(diagnostics_period=None) == "50 steps, by the training loss"


def test_the_plateau_is_near_chance_also_for_other_numbers_of_classes(load, make_curve):
    evaluations = {step: [make_curve("unseen")] for step in (50, 100)}
    of = load({"evaluations": evaluations, "num_classes": 5}, {"evaluations": evaluations, "num_classes": 5, "seed": 1})
    zoom = fig07_loss_over_steps.draw(of).figure.axes[1]
    assert zoom.get_ylim() == pytest.approx((2.25 - math.log(2), 2.40 - math.log(2)))


def test_weight_decays_and_numbers_of_tasks_have_their_panels(load, make_curve):
    def run(num_tasks, decay, loss):
        settings = {"Run.optimizer": "@outer/adamw()", "outer/adamw.weight_decay": decay}
        evaluations = {step: [make_curve("unseen", loss=loss)] for step in (50, 100)}
        return {"num_tasks": num_tasks, "settings": settings, "evaluations": evaluations}

    of = load(run(1024, 0.01, 3.0), run(1024, 1.0, 2.5), run(2**16, 0.01, 1.2))
    axes = fig20_weight_decay.draw(of).figure.axes
    titles = [
        "$2^{10}$ tasks, weight decay 0.01",
        "$2^{10}$ tasks, weight decay 1",
        "$2^{16}$ tasks, weight decay 0.01",
    ]
    assert [each.get_title() for each in axes[:3]] == titles and len(axes) == 4
    np.testing.assert_allclose(
        [drawn(each, "unseen tasks, digits")[1] for each in axes[:3]], [[3, 3], [2.5, 2.5], [1.2, 1.2]]
    )


def test_phases_by_batch_size(load, make_curve):
    def run(batch, num_tasks, left_at, last, seed=0):
        curves = {100: [make_curve("unseen", last=last)]}
        settings = {"TaskDistribution.task_batch_size": batch, "TaskDistribution.num_tasks": num_tasks}
        run_info = {"task_batch_size": batch, "num_tasks": num_tasks, "left_at": left_at, "settings": settings}
        return run_info | {"evaluations": curves, "seed": seed}

    of = load(
        run(8, 16, 50, 0.1),
        run(8, 2**16, None, 0.1),
        run(64, 2**16, 50, 0.6),
        run(64, 2**16, 50, 0.6, 1),
        run(64, 2**16, None, 0.1, 2),
    )
    chart = fig08_phases_by_batch_size.draw(of)
    (axes,) = chart.figure.axes
    marks = {(line.get_xdata()[0], line.get_ydata()[0]): line.get_marker() for line in axes.get_lines()}
    assert marks == {(0.5, 0.5): "x", (0.5, 1.5): "_", (1.5, 1.5): "o"}
    assert texts(axes.texts) == ["2/3"]
    assert [patch.get_xy() for patch in axes.patches if patch.get_hatch()] == [(1, 0)]
    counts = chart.numbers.set_index(["task_batch_size", "num_tasks"])
    assert counts.loc[(64, 2**16), ["Plateau", "Overfit", "Generalize"]].tolist() == [1, 0, 2]


def plateau(batch, num_tasks, left_at, optimizer="adam", **settings):
    settings = {"Run.optimizer": f"@{optimizer}()", "TaskDistribution.task_batch_size": batch} | settings
    run_info = {"task_batch_size": batch, "num_tasks": num_tasks, "left_at": left_at, "settings": settings}
    return run_info | {"diagnostics_period": None, "evaluations": {}}


def test_plateaus_shorten_with_the_batch_and_are_censored_at_the_budget(load):
    of = load(
        plateau(32, 2**16, 80),
        plateau(128, 2**16, 20),
        plateau(32, 2**20, None),
        plateau(128, 2**20, 40) | {"ended": "DIVERGED"},
    )
    chart = fig08_plateau_scaling.draw(of)
    steps, by_tasks, seen, _ = chart.figure.axes
    np.testing.assert_allclose(drawn(steps, "$2^{16}$ tasks"), [[5, 7], [80, 20]])
    np.testing.assert_allclose(drawn(steps, "$2^{20}$ tasks"), [[5, 7], [100, 40]])
    hollow = [line for line in steps.get_lines() if line.get_marker() == "^" and len(line.get_xdata())]
    assert [(line.get_xdata().tolist(), line.get_ydata().tolist()) for line in hollow] == [([5], [100])]
    np.testing.assert_allclose(drawn(seen, "$2^{16}$ tasks")[1], [80 * 32, 20 * 128])
    np.testing.assert_allclose(drawn(by_tasks, "batch size 128"), [[16, 20], [20, 40]])
    assert steps.get_yscale() == "log" and texts(steps.get_xticklabels()) == ["32", "128"]
    assert "longer than that" in labels(chart.figure)
    assert math.isinf(chart.numbers.query("num_tasks == 2**20 and task_batch_size == 32")["median"].item())


def test_optimisers_have_lines_of_their_own(load):
    runs = [
        plateau(batch, 2**16, left, **{"adam.eps": eps})
        for batch, left, eps in ((32, 80, 1e-8), (128, 40, 1e-8), (32, 20, 1e-16))
    ]
    signs = [
        plateau(128, 2**16, 10, "sign_ema", **{"sign_ema.learning_rate": rate})
        | {"labels": {"intervention": f"sign_{rate}"}}
        for rate in (1e-4, 1e-3)
    ]
    chart = fig08_plateau_scaling.draw(load(*runs, *signs))
    signs = {"sign_ema, learning rate 0.0001", "sign_ema, learning rate 0.001"}
    assert set(chart.numbers["optimiser"]) == {"adam, eps 1e-08", "adam, eps 1e-16"} | signs
    assert chart.numbers["condition"].unique().tolist() == [""]
    assert chart.ours["plateau_by_eps"] == "times 0.25"
    assert set(labels(chart.figure)) > set(chart.numbers["optimiser"])


def test_raw_pixels_and_frozen_features(load, make_curve):
    def run(name, shape, **accuracies):
        curves = [make_curve("unseen", tested, last=x) for tested, x in accuracies.items()]
        settings = {"TaskDistribution.input_shape": shape, "TaskDistribution.base_dataset": f"'{name}'"}
        return {"base_dataset": {"name": name}, "settings": settings, "evaluations": {100: curves}}

    of = load(
        run("mnist", (32, 32, 3), mnist=0.7, fashion_mnist=0.6, cifar10=0.2),
        run("mnist_resnet50", (2048,), mnist_resnet50=0.75, fashion_mnist_resnet50=0.65, cifar10_resnet50=0.45),
    )
    chart = fig10_pretrained_features.draw(of)
    (axes,) = chart.figure.axes
    assert texts(axes.get_xticklabels()) == ["mnist", "fashion_mnist", "cifar10"]
    np.testing.assert_allclose(drawn(axes, "raw pixels")[1], [0.7, 0.6, 0.2])
    np.testing.assert_allclose(drawn(axes, "frozen features")[1], [0.75, 0.65, 0.45])
    assert chart.ours == {"cifar10_from_features": "45.0%"}


def test_accuracy_by_sequence_length(load, make_curve):
    runs = [
        {
            "sequence_length": length,
            "settings": {"TaskDistribution.sequence_length": length, "Transformer.max_length": length},
            "evaluations": {100: [make_curve("seen", last=last), make_curve("unseen", last=last - 0.1)]},
        }
        for length, last in ((50, 0.5), (400, 0.8))
    ]
    chart = fig14_sequence_length.draw(load(*runs))
    (axes,) = chart.figure.axes
    np.testing.assert_allclose(drawn(axes, "unseen tasks, digits"), [np.log2([50, 400]), [0.4, 0.7]])
    assert texts(axes.get_xticklabels()) == ["50", "400"]
    assert chart.ours == {"accuracy_by_sequence_length": "unseen tasks, digits: 40.0% (50), 70.0% (400)"}


def test_vsml_by_layers(load):
    def run(layers, num_tasks, share, left_at):
        settings = {"Run.model": "@VSML()", "VSML.num_layers": layers}
        run_info = {"model": "VSML", "settings": settings, "num_tasks": num_tasks, "permute_labels_prob": share}
        return run_info | {"left_at": left_at, "evaluations": {}, "ended": None}

    chart = fig21_vsml_layers.draw(
        load(run(1, 1, 1.0, 20), run(2, 1, 1.0, None), run(2, 2**25, 0.0, 60), {"model": "LSTM"})
    )
    axes = chart.figure.axes
    titles = ["1 task, 1 layer", "1 task, 2 layers", "$2^{25}$ tasks, 1 layer", "$2^{25}$ tasks, 2 layers"]
    assert [each.get_title() for each in axes] == titles
    steps, losses = drawn(axes[0], "100% of tasks permute labels")
    assert steps[losses < 2].min() == 20 and (drawn(axes[1], "100% of tasks permute labels")[1] == 2.25).all()
    assert "0% of tasks permute labels" in [line.get_label() for line in axes[3].get_lines()]


def test_methods_are_beside_the_published_values(load, make_curve):
    def run(model, last, **settings):
        curves = [make_curve("unseen", "mnist", last=last), make_curve("unseen", "cifar10", last=0.3)]
        return {"model": model, "base_dataset": {"name": "mnist"}, "evaluations": {100: curves}, "settings": settings}

    slow, fast = ({"inner/adam.learning_rate": rate} for rate in (1e-4, 1e-3))
    of = load(run("OnlineSGD", 0.4, **slow), run("OnlineSGD", 0.7, **fast), run("Transformer", 0.8), run("Mine", 0.5))
    chart = table2_methods.draw(of)
    table = chart.numbers.set_index(["model", "test_dataset"])
    assert table.loc[("OnlineSGD", "mnist"), ["mean", "published"]].tolist() == pytest.approx([0.7, 0.7031])
    assert table.loc[("OnlineSGD", "mnist"), "condition"] == "learning_rate = 0.001"
    assert table.loc[("Transformer", "cifar10"), ["mean", "published"]].tolist() == pytest.approx([0.3, 0.1940])
    assert math.isnan(table.loc[("Mine", "mnist"), "published"])
    mnist, cifar = chart.figure.axes
    assert mnist.get_title() == "mnist\n(trained on it)" and cifar.get_title() == "cifar10\n(trained on mnist)"
    assert texts(mnist.get_yticklabels()) == ["OnlineSGD", "Transformer", "Mine"]
    diamonds = [line for line in mnist.get_lines() if line.get_marker() == "D"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in diamonds] == [(0.7031, 0), (0.737, 1)]
    words = table2_methods.in_words(chart.numbers).set_index("model")
    assert words.loc["Transformer", "mnist"] == "80.0% [75.0%, 85.0%] (73.70%)"
    assert words.loc["Mine", "cifar10"] == "30.0% [25.0%, 35.0%]"


def test_published_values_are_of_runs_trained_on_mnist_only(load, make_curve):
    run = {
        "base_dataset": {"name": "digits"},
        "evaluations": {100: [make_curve("unseen"), make_curve("unseen", "mnist")]},
    }
    assert table2_methods.numbers(load(run))["published"].isna().all()
