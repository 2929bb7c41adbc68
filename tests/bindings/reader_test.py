"""Gin files as users write them: mistakes are named with their file and line, in one short line."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpicl_flax.config import parse
from gpicl_flax.errors import UsageError
from gpicl_flax.runs.run import Run

quickly = settings(deadline=None, derandomize=True, max_examples=30)


@pytest.fixture
def write(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


def refusal(*files, bindings=()):
    """The message of a refusal, which is one short line without addresses."""
    with pytest.raises(UsageError) as caught:
        parse(files, bindings)
    message = str(caught.value)
    assert "\n" not in message and " at 0x" not in message, message
    return message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Run.seed\u00a0= 1", "U+00A0 (NO-BREAK SPACE)"),
        ("Run.seed = 1\u200b", "U+200B (ZERO WIDTH SPACE)"),
        ("Run.seed = 1\u2028", "U+2028 (LINE SEPARATOR)"),
        ("Run.matmul_precision = \u2018float32\u2019", "U+2018 (LEFT SINGLE QUOTATION MARK)"),
        ("Run.seed = \uff11", "U+FF11 (FULLWIDTH DIGIT ONE)"),
        ("Run.seed = 1\0", "U+0000"),
        ("TaskDistribution.base_dataset = mnist", 'quotes: TaskDistribution.base_dataset = "mnist"'),
        ("TaskDistribution.base_dataset = data/8x8.npz  # mine", '"data/8x8.npz"'),
        ("MetaTest.base_datasets = ['digits', mnist]", "a string needs quotes: 'mnist'"),
        ("sweep.grids = [{'Run.seed': range(3)}]", "range(...) is not called"),
        ("Run.tensorboard = true", "write True for true"),
        ("Run.seed = nan", "finite"),
        ("Run.seed = -inf", "finite"),
        ("Run.seed = 1e400", "Run.seed must be finite, not inf"),
        ("SEED = 1e400", "SEED must be finite"),
        ("Run.seed = 2**3", "the result of 2**3"),
        ("Run.seed = " + "9" * 5000, "is no value"),
        ("Run.seed = 0x" + "f" * 5000, "20,000 bits"),
        ("Run.labels = {'a': (1, [-1e400])}", "Run.labels must be finite"),
        ("Run.labels = {1e400: 1}", "Run.labels must be finite"),
        ("Run.labels = {'a': '\\ud800'}", "Run.labels has a character"),
        ("Run.labels = {'a': '1', 'a': '2'}", "'a' is twice in a dict"),
        ("sweep.grids = [{'x': {'a': {'Run.seed': 1, 'Run.seed': 2}}}]", "'Run.seed' is twice"),
        ("Run.labels = {[1]: 2}", "[1] cannot be the key of a dict"),
        ("Run.seed = [1", "a bracket is not closed"),
        ("Run.matmul_precision = 'a", "a quote is not closed"),
        ("Run.seed = " + "[" * 3000, "nested too deeply"),
        ("Run.seed 3", "NAME = VALUE"),
        ("Run.seed = 1 2", "must end after its value"),
        ("Run.sed = 1", "Run has no parameter 'sed'; did you mean seed?"),
        ("Rum.seed = 1", "no configurable 'Rum'; did you mean Run?"),
        ("Rum:\n  seed = 1", "no configurable 'Rum'"),
        ("Run.model = @Transformr()", "no configurable 'Transformr'; did you mean Transformer?"),
        ("Run.seed = %NOPE", "macro NOPE has no value"),
        ("include 'none.gin'", "no gin file 'none.gin'"),
        ("import no_such_module_at_all", "No module named"),
    ],
)
def test_a_mistake_is_named_with_its_file_and_line(write, text, words):
    path = write("my.gin", f"# comment\nRun.tensorboard = False\n{text}\n")
    message = refusal(path)
    assert words in message
    assert message.startswith(f"gin: {path}, line 3: ")
    if "\n" not in text:
        assert words in refusal(bindings=[text])


def test_what_a_text_may_have(write):
    path = write(
        "my.gin",
        b"\xef\xbb\xbf# \xe2\x80\x98quoted\xe2\x80\x99\xc2\xa0text\r\nRun.labels = {\r\n  'a': 'b\xc2\xa0c',\r\n"
        b"  \"d\": '''e\xe2\x80\x8bf'''}\r\nGR\xc3\x96SSE = 3\r\nRun.seed = %GR\xc3\x96SSE",
    )
    config = parse([path])
    assert config.bindings == {"Run.labels": {"a": "b\xa0c", "d": "e\u200bf"}, "Run.seed": 3}
    assert parse([path, path]) == config
    assert parse([], ["\ufeffRun.seed = 4"]).bindings == {"Run.seed": 4}


@quickly
@given(st.sampled_from("\u00a0\u200b\u200c\u2060\u2028\u00ad\ufeff\u3000\u2212\uff1d\u201c\x00\x07"), st.data())
def test_an_odd_character_is_found_wherever_it_is(tmp_path_factory, character, data):
    text = "Run.seed = 1\nRun.labels = {'a': 'b'}\n\nTraining.steps = 20\n"
    inside = [index for index in range(1, len(text)) if not text.startswith(("a'", "'", "b'"), index)]
    place = data.draw(st.sampled_from(inside))
    path = tmp_path_factory.mktemp("odd") / "my.gin"
    path.write_text(text[:place] + character + text[place:])
    line = text.count("\n", 0, place) + 1
    assert f"my.gin, line {line}: U+{ord(character):04X} (" in refusal(str(path))


def test_files_that_are_no_text_are_refused(write, tmp_path):
    assert "is no UTF-8 text (byte 4)" in refusal(write("my.gin", b"# a\n\x9d\x00"))
    assert "is UTF-16 text" in refusal(write("my.gin", "Run.seed = 1".encode("utf-16")))
    assert "is a folder" in refusal(str(tmp_path))
    write("folder/file", "")
    assert "my.gin, line 1: " in (message := refusal(write("my.gin", "include 'folder'"))) and "is a folder" in message


def test_an_include_is_found_beside_the_file_that_has_it(write, tmp_path, monkeypatch, caplog):
    path = write("there/a.gin", "include 'b.gin'\n")
    write("there/b.gin", "include 'gin/base.gin'\nRun.seed = 5\n")
    monkeypatch.chdir(tmp_path)
    assert parse([path]).resolve(Run)[0].seed == 5
    assert not caplog.records
    write("b.gin", "Run.seed = 6\n")
    assert parse([path]).resolve(Run)[0].seed == 5
    assert "there/b.gin, and not" in caplog.text
    write("there/b.gin", "include 'none.gin'")
    message = refusal(path)
    assert "there/b.gin, line 1: no gin file 'none.gin', neither beside that file, here nor in" in message


def test_files_that_include_each_other_are_refused(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("a.gin", "include 'b.gin'\n")
    write("b.gin", "\ninclude './a.gin'\n")
    assert refusal("a.gin").endswith(
        "b.gin, line 2: files include each other in a circle: a.gin includes b.gin includes a.gin"
    )
    write("a.gin", "include 'c.gin'\ninclude 'b.gin'\n")  # twice the same is no circle
    write("b.gin", "include 'c.gin'\n")
    write("c.gin", "Run.seed = 7\n")
    assert parse(["a.gin"]).bindings == {"Run.seed": 7}


def test_a_macro_needs_a_value_only_where_it_is_used(write):
    path = write("my.gin", "Run.seed = %SEED\n")
    assert parse([path], ["Run.seed = 1"]).bindings == parse([path], ["SEED = 1"]).bindings == {"Run.seed": 1}


def test_a_dict_has_a_binding_once_under_all_its_names():
    message = refusal(bindings=["sweep.fixed = {'adam.b1': 0.5, 'training.optimizers.adam.b1': 0.6}"])
    assert message == "sweep.fixed: a dict has adam.b1 twice, under two of its names"


plain = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
plain |= st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=90)
nested = st.recursive(
    plain,
    lambda each: (
        st.lists(each, max_size=3)
        | st.lists(each, max_size=3).map(tuple)
        | st.dictionaries(st.text("abc", min_size=1), each, max_size=3)
    ),
    max_leaves=8,
)


@quickly
@given(nested)
def test_every_plain_value_is_read_as_it_was_written(value):
    assert parse([], [f"Run.labels = {value!r}"]).bindings == {"Run.labels": value}


@quickly
@given(nested, st.sampled_from(["1e400", "-1e999", f"{2**70}", "'\\ud800'"]), st.data())
def test_a_value_that_gin_would_drop_is_refused(value, bad, data):
    around = data.draw(st.sampled_from(["[{}, {}]", "({}, {})", "{{'a': {}, 'b': {}}}", "{{'a': [{}, ({},)]}}"]))
    written = around.format(repr(value), bad)
    assert "Run.labels" in refusal(bindings=[f"Run.labels = {written}"])
