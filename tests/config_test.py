import re

import gin
import pytest

from gpicl_flax import config
from gpicl_flax.bindings import direct, moved, parser, reader
from gpicl_flax.config import Config, Reference, differences, parse, parse_bindings
from gpicl_flax.errors import UsageError
from gpicl_flax.models import LSTM, Transformer
from gpicl_flax.runs.run import Run
from gpicl_flax.training.probes.diagnostics import Diagnostics


@pytest.fixture
def gin_file(tmp_path):
    def write(text):
        path = tmp_path / "config.gin"
        path.write_text(text)
        return str(path)

    return write


def refused(action, *words):
    with pytest.raises(UsageError) as caught:
        action()
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


def test_files_and_bindings_become_a_run_and_later_ones_win(gin_file):
    path = gin_file("include 'gin/base.gin'\nRun.model = @LSTM()\nLSTM.hidden_size = 32\nRun.seed = 1\n")
    run, operative = parse([path], ["Run.seed = 2", "Training.steps = 100"]).resolve(Run)
    assert run.model == LSTM(hidden_size=32)
    assert (run.seed, run.training.steps, run.tasks.num_tasks) == (2, 100, 2**25)
    assert "adam.eps_root = 1e-08" in operative  # defaults are part of it


def test_base_gin_and_no_gin_are_both_the_papers_setting():
    from_file, _ = parse(["gin/base.gin"]).resolve(Run)
    assert from_file.model == Transformer() == Run().model
    assert (from_file.tasks, from_file.meta_test) == (Run().tasks, Run().meta_test)
    assert from_file.training.diagnostics == Diagnostics()  # they change nothing, and can be turned off
    assert parse(["gin/base.gin"], ["Training.diagnostics = None"]).resolve(Run)[0].training == Run().training


def test_macros_are_replaced_by_their_values(gin_file):
    path = gin_file("N = 16\nSIZE = %N\nRun.model = @LSTM()\nLSTM.hidden_size = %SIZE\nRun.seed = %N\n")
    config = parse([path])
    assert config.bindings["LSTM.hidden_size"] == config.bindings["Run.seed"] == 16
    assert parse([path], ["N = 8"]).resolve(Run)[0].model.hidden_size == 8


def test_the_text_of_a_configuration_is_a_gin_file_with_the_same_meaning(gin_file):
    config = parse(["gin/quickstart.gin"], ["TaskDistribution.data_dir = \"it's a 'path'\""])
    again = parse([gin_file(config.text)])
    assert again == config
    assert differences(config, again) == []


def test_differences_name_the_binding_and_both_values():
    base = parse(["gin/base.gin"])
    assert differences(base, base.override({"Run.seed": 3})) == ["Run.seed is 0 there, 3 here"]
    assert differences(base, base.without("Run.seed")) == ["Run.seed is 0 there, unset here"]


def test_mistakes_in_names_are_refused(gin_file):
    refused(lambda: parse(["gin/none.gin"]), "gin/none.gin")
    refused(lambda: parse([gin_file("LSTM.hiden_size = 3")]), "hiden_size")
    refused(lambda: parse([gin_file("LTSM.hidden_size = 3")]), "LTSM")
    refused(lambda: parse([gin_file("Run.model = @LTSM()")]), "LTSM")
    refused(lambda: parse([gin_file("Run.seed = %SEED")]), "SEED")
    refused(lambda: parse([gin_file("A = %A\nRun.seed = %A")]), "gin:")
    refused(lambda: parse([gin_file("include 'gin/none.gin'")]), "gin/none.gin")
    refused(lambda: parse([gin_file("import no_such_module_at_all")]), "no_such_module_at_all")
    refused(lambda: parse([gin_file("Run.seed = = 3")]), "Unable to parse", "line 1")
    refused(lambda: parse(["gin/base.gin"], ["Run.seed"]), "gin:")


def test_bindings_and_macros_that_nothing_uses_are_refused(gin_file):
    refused(lambda: parse(["gin/base.gin"], ["LSTM.hidden_size = 3"]).resolve(Run), "not used", "LSTM.hidden_size")
    refused(lambda: parse(["gin/base.gin"], ["a/Transformer.num_layers = 3"]).resolve(Run), "a/Transformer.num_layers")
    refused(lambda: parse(["gin/base.gin"], ["STEPS = 3"]), "macro never used", "STEPS")


def test_a_binding_of_a_sweep_may_name_the_module():
    config = parse(["gin/base.gin"], ["adam.learning_rate = @optax.cosine_decay_schedule()"])
    schedule = {"init_value": 1e-3, "decay_steps": 100}
    run, _ = config.override({f"optax.cosine_decay_schedule.{key}": x for key, x in schedule.items()}).resolve(Run)
    assert run.training.steps == 50_000


def test_values_that_do_not_fit_are_refused_in_one_line():
    def resolve(*bindings):
        return lambda: parse(["gin/base.gin"], bindings).resolve(Run)

    refused(resolve("TaskDistribution.sequence_length = 101"), "101", "100 positions", "Transformer.max_length")
    refused(resolve("TaskDistribution.num_classes = 5"), "num_classes = 10", "num_classes = 5")
    refused(resolve("Training.steps = 15"), "Training.steps = 15", "steps_per_dispatch = 10")
    refused(resolve("Training.accumulation = 0"), "Training.accumulation")
    refused(resolve("MetaTest.num_sequences = 0"), "MetaTest.num_sequences")
    refused(resolve("TaskDistribution.num_tasks = None", "Training.steps = 20000000"), "2**31")
    refused(resolve("Transformer.token_layout = 'other'"), "token_layout")
    refused(resolve("Transformer.num_layers = 'two'"), "num_layers")
    refused(resolve("Run.seed = -1"), "Run.seed", "2**32-1")
    refused(resolve("Run.seed = 1.5"), "Run.seed must be of type int")
    refused(resolve("Run.model = @LSTM"), "Run.model must be of type SequenceModel")
    refused(resolve("Run.optimizer = 'adam'"), "Run.optimizer must be of type GradientTransformation")
    refused(resolve("MetaTest.base_datasets = 'digits'"), "MetaTest.base_datasets must be of type list or tuple")
    refused(resolve("TaskDistribution.input_shape = (8, 8)"), "input_shape")
    refused(resolve("TaskDistribution.input_shape = (8, 8, '1')"), "input_shape")
    refused(resolve("TaskDistribution.num_tasks = 'all'"), "num_tasks must be of type int or None")
    refused(resolve("TaskDistribution.normalize = 'no'"), "normalize must be of type bool")
    refused(resolve("MeshShape.data = '2'"), "MeshShape.data")
    refused(resolve("adam.learning_rate = '1e-3'"), "adam.learning_rate must be a number")
    refused(resolve("adam.clip_norm = -1.0"), "adam.clip_norm must be a number from 0 on")
    refused(resolve("MetaTest.base_datasets = [3]"), "MetaTest.base_datasets")
    refused(resolve("Transformer.dtype = 'float8'"), "dtype must be one of float32, bfloat16")
    refused(resolve("Training.steps = 'many'"), "Training.steps")


def test_settings_are_those_of_resolve_and_need_no_text(monkeypatch):
    config = parse(["gin/base.gin"], ["a/adam.b1 = 0.5", "Run.optimizer = @a/adam()", "Run.labels = {'x': 'y'}"])
    run, operative = config.resolve(Run)
    assert "a/adam.b1 = 0.5" in operative
    monkeypatch.setattr(reader, "load_text", lambda text: pytest.fail("a text is parsed"))
    assert repr(config.settings(Run)).partition(" at 0x")[0] == repr(run).partition(" at 0x")[0]


@pytest.mark.parametrize(
    "bindings",
    [
        {"LSTM.hidden_size": 3},
        {"LSTM.hiden_size": 3},
        {"Run.model": Reference("@LTSM()")},
        {"Run.model": Reference("@a b/LSTM()")},
        {"a b/Run.seed": 1},
        {"Run.seed": float("nan")},
        {"Run.seed": object()},
        {"Run.seed": -1},
        {"Run.model": (Reference("@LTSM"),)},
        {"Transformer.num_layers": Reference("@Transformer()")},
    ],
)
def test_settings_are_refused_in_the_words_of_a_text(bindings, monkeypatch):
    """Values that gin gets as they are have no other messages than the same values in a text."""

    def message() -> str:
        with pytest.raises(UsageError) as error:
            parse(["gin/base.gin"]).override(bindings).settings(Run)
        return re.sub(r"0x\w+", "", str(error.value))

    found = message()

    def load(bindings):
        raise direct.NeedsText

    monkeypatch.setattr(direct, "load", load)
    assert found == message()


def test_an_import_in_a_gin_file_is_kept(gin_file, tmp_path, monkeypatch):
    (tmp_path / "my_models.py").write_text(
        "import gin\nfrom gpicl_flax.models import LSTM\n@gin.configurable\nclass MyModel(LSTM):\n  pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    config = parse([gin_file("import my_models\nRun.model = @MyModel()\n")])
    assert config.text.startswith("import my_models\n")
    run, _ = parse([gin_file(config.text)]).resolve(Run)
    assert type(run.model).__name__ == "MyModel"


def test_nothing_is_left_in_gin():
    bindings = ["Run.model = @LSTM()", "LSTM.hidden_size = 7"]
    assert parse([], bindings).resolve(Run)[0].model.hidden_size == 7
    assert LSTM().hidden_size == 256
    with pytest.raises(UsageError):
        parse([], [*bindings, "LSTM.hidden = 1"])
    assert LSTM().hidden_size == 256


def test_a_binding_replaces_one_of_the_same_parameter_that_is_spelled_otherwise():
    base = parse(["gin/base.gin"], ["sgd.learning_rate = 0.1", "a/LSTM.hidden_size = 4"])
    config = base.override(
        {"runs.run.Run.seed": 7, "gpicl_flax.training.optimizers.sgd.learning_rate": 0.2, "a/lstm.LSTM.hidden_size": 8}
    )
    assert config == base.override({"Run.seed": 7, "sgd.learning_rate": 0.2, "a/LSTM.hidden_size": 8})
    assert config.bindings.keys() == base.bindings.keys()
    assert base.override({"NoSuch.thing": 1}).bindings["NoSuch.thing"] == 1  # refused when it is resolved


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("Run.seed", 1), ("gpicl_flax.runs.run.Run.seed", 1)),
        (("Run.model", Reference("@Transformer()")), ("Run.model", Reference("@models.transformer.Transformer()"))),
        (("x/adam.b1", 0.5), ("x/optimizers.adam.b1", 0.5)),
        (("Run.model", Reference("@x/LSTM")), ("Run.model", Reference("@x/lstm.LSTM"))),
        (("MetaTest.base_datasets", ["a", "b"]), ("MetaTest.base_datasets", ("a", "b"))),
        (("Run.labels", {"a": "1", "b": "2"}), ("Run.labels", {"b": "2", "a": "1"})),
        (("adam.learning_rate", 1e-3), ("adam.learning_rate", 0.001)),
    ],
)
def test_configurations_of_one_meaning_have_one_canonical_form(one, other):
    assert Config(dict([one])).canonical == Config(dict([other])).canonical
    assert differences(Config(dict([one])), Config(dict([other]))) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("adam.learning_rate", 1), ("adam.learning_rate", 1.0)),
        (("Training.telemetry", 1), ("Training.telemetry", True)),
        (("Run.seed", "1"), ("Run.seed", 1)),
        (("Run.model", Reference("@LSTM()")), ("Run.model", Reference("@LSTM"))),
        (("Run.model", Reference("@LSTM()")), ("Run.model", Reference("@x/LSTM()"))),
        (("Run.model", Reference("@LSTM()")), ("Run.model", "@LSTM()")),
        (("adam.b1", 0.5), ("x/adam.b1", 0.5)),
        (("MetaTest.base_datasets", ["a", "b"]), ("MetaTest.base_datasets", ["b", "a"])),
        (("MetaTest.base_datasets", ["a", "b"]), ("MetaTest.base_datasets", ["a, b"])),
        (("MetaTest.base_datasets", ["a"]), ("MetaTest.base_datasets", "a")),
    ],
)
def test_configurations_of_two_meanings_have_two_canonical_forms(one, other):
    assert Config(dict([one])).canonical != Config(dict([other])).canonical
    assert len(differences(Config(dict([one])), Config(dict([other])))) in (1, 2)


def test_class_names_are_unique_in_the_package():
    """Canonical forms name a configurable of the package without its module."""
    own = [selector for selector in gin.config._REGISTRY._selector_map if selector.startswith("gpicl_flax.")]
    names = [selector.rpartition(".")[2] for selector in own]
    assert len(names) == len(set(names)) > 20


def test_names_with_the_modules_of_before_work_and_give_one_warning(gin_file, caplog):
    moved.warn.cache_clear()
    path = gin_file(
        "gpicl_flax.run.Run.seed = 3\nRun.optimizer = @adam()\n"
        "Training.telemetry = @gpicl_flax.training.telemetry.Telemetry()\ntraining.telemetry.Telemetry.period = 20\n"
    )
    config = parse([path])
    run, _ = config.override({"gpicl_flax.run.Run.seed": 4, "adam.b1": 0.5}).resolve(Run)
    assert (run.seed, run.training.telemetry.period, run.optimizer.arguments["b1"]) == (4, 20, 0.5)
    lines = [record.getMessage() for record in caplog.records if record.name == moved.__name__]
    assert lines.count("gpicl_flax.run.Run is now gpicl_flax.runs.run.Run; the old name works until 0.3") == 1
    assert len(lines) == 3
    refused(lambda: parse([gin_file("gpicl_flax.train.Run.seed = 3")]), "gpicl_flax.train.Run")


@pytest.mark.parametrize(("old", "new"), moved.FORMER_NAMES.items())
def test_every_module_that_moved_is_found(old, new):
    assert gin.config._REGISTRY.get_match(old).selector == new


@pytest.mark.parametrize(
    "text",
    [
        "# a comment \\\n\nimport os\nRun.seed = 1  # one\nRun.seed = 2\n",
        "LSTM.name = %n\nn = 'a'\n",
        "Run.labels = {'a': [1, %n], 'b': @LSTM()}\nn = (2,)\n",
        "Run.labels = {\n'a': [1,\n2],\n}\nRun.seed = 3\n",
        "Run.seed = \\\n    4\n",
        'LSTM.name = """a\n\nRun.seed = 5\n"""\nRun.steps = 1\n',
        "LSTM.name = 'a' \\\n'b'\n",
        "Run.seed = 1\n  Run.steps = 2\n",
        "Run:\n  seed = 1\n",
        "Run.seed = 1\n\ninclude 'x.gin'\n",
        "Run.seed = 1\nRun.steps = two\n",
        "Run.seed = 1\nRun.steps = (2\n",
        "Run.seed = 1\n'b'\n",
        "Run.seed = \u20281\n",
    ],
)
def test_a_text_is_read_line_by_line_as_it_is_as_a_whole(text, monkeypatch):
    def found():
        try:
            return parse_bindings(text)
        except UsageError as error:
            return str(error)

    by_line = found()
    monkeypatch.setattr(config, "_statements", lambda text: parser.statements(text, config._Delegate()))
    assert by_line == found()


def test_configurations_with_the_same_line_share_no_value():
    first, second = (parse_bindings("Run.labels = {'a': [1]}\n").bindings["Run.labels"] for _ in range(2))
    first["a"].append(2)
    assert second == {"a": [1]}
