"""Many settings and files, most of them wrong: each is used, or refused in one line."""

import io
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpicl_flax.config import parse, parse_bindings, parse_text
from gpicl_flax.errors import UsageError
from gpicl_flax.learners import tabular_io
from gpicl_flax.runs.run import Run
from gpicl_flax.tasks.datasets import files

pytestmark = pytest.mark.storm
EXAMPLES = 2000
BASE = parse(["gin/quickstart.gin"])
many = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)

raw = st.sampled_from(["@LSTM()", "@adam", "@Run()", "%STEPS", "1e400", "@Diagnostics()", "@EarlyStop()"])
numbers = st.one_of(st.integers(-(2**70), 2**70), st.integers(-3, 300), st.floats())
scalars = st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=8), raw.map(lambda text: ("raw", text)))
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


def as_gin(value):
    match value:
        case ("raw", text):
            return text
        case list():
            return f"[{', '.join(map(as_gin, value))}]"
        case dict():
            return f"{{{', '.join(f'{key!r}: {as_gin(each)}' for key, each in value.items())}}}"
        case float():
            return repr(value) if np.isfinite(value) else {"nan": "nan", "inf": "1e400", "-inf": "-1e400"}[str(value)]
    return repr(value)


def check(error):
    message = str(error)
    assert "\n" not in message and not re.search(r"0x[0-9a-f]{6}", message), message


NAMES = sorted({*BASE.bindings, "Run.labels", "Run.matmul_precision", "Training.early_stop", "EarlyStop.plateau_steps",
                "TaskDistribution.num_tasks", "TaskDistribution.projection", "adam.clip_norm", "adam.weight_decay",
                "MeshShape.data", "Loader.num_workers", "MetaTest.sequences_per_task"})  # fmt: skip


@many
@given(st.sampled_from(NAMES), values)
def test_settings(name, value):
    try:
        config = BASE.override(parse_text(f"{name} = {as_gin(value)}\n").bindings)
        run, _ = config.resolve(Run)
        run.check_devices(trains=False)
    except UsageError as error:
        check(error)


@many
@given(st.text(alphabet="Run.sed=1@%/()[]{},'\"#: \n\t\u00a0\ufeffé0-+ab", max_size=60))
def test_gin_texts(text):
    for parse_ in (parse_text, parse_bindings):  # of a person, and of a run folder
        try:
            parse_(text)
        except UsageError as error:
            check(error)


CHARACTERS = ',;"\n\r 1.eNA\t-x\0é'
CSV = "a,b,label\n1,10,cat\n2,11,cat\n8,1,dog\n9,2,dog\n"


@many
@given(st.data())
def test_tables(tmp_path_factory, data):
    """A table in which some characters were changed, removed or added."""
    text = list(CSV)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(text)))
        text[place : place + data.draw(st.integers(0, 3))] = data.draw(
            st.text(alphabet=',;"\n\r 1.eNA\t-x\0é', max_size=3)
        )
    path = tmp_path_factory.getbasetemp() / "table.csv"
    path.write_text("".join(text), newline="")
    try:
        table = tabular_io.read_context(str(path), "label")
    except UsageError as error:
        check(error)
        assert "table.csv" in str(error)
    else:
        assert len(table.labels) == len(table.features) and np.isfinite(np.asarray(table.features, float)).all()


def _npz():
    buffer = io.BytesIO()
    np.savez(buffer, train_images=np.zeros((4, 3, 3), np.uint8), train_labels=np.arange(4))
    return buffer.getvalue()


IDX = b"\0\0\x08\x03" + b"\0\0\0\x02" * 3 + bytes(8)


@many
@given(st.sampled_from([("x.npz", _npz()), ("x.idx", IDX), ("x.npz", IDX), ("x.idx", _npz())]), st.data())
def test_arrays(tmp_path_factory, file, data):
    """A file of arrays in which some bytes were changed, or which was cut."""
    name, content = file
    content = bytearray(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    for _ in range(data.draw(st.integers(0, 3))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(content)
    try:
        files.read_array(path, "images")
    except UsageError as error:
        check(error)
        assert name in str(error)
