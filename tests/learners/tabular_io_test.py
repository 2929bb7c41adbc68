"""Files of examples: features that are finite numbers, labels as they are written."""

import csv

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from gpicl_flax.errors import UsageError
from gpicl_flax.learners import tabular_io

labels = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=6)
labels = (labels | st.sampled_from(["NA", "None", "null", "nan", "n/a", "1", "01", "True"])).filter(str.strip)
finite = st.floats(allow_nan=False, allow_infinity=False)


@pytest.fixture
def read(tmp_path, monkeypatch):
    """(context, queries) -> both tables, from CSV files of these texts."""
    monkeypatch.chdir(tmp_path)

    def read(context="a,b,label\n1,2,x\n3,4,y\n", queries="a,b\n5,6\n", label="label"):
        (tmp_path / "c.csv").write_text(context)
        (tmp_path / "q.csv").write_text(queries)
        table = tabular_io.read_context("c.csv", label)
        return table, tabular_io.read_queries("q.csv", label, table)

    return read


@pytest.fixture
def refused(read):
    """(*words, **texts): files of these texts are refused in one line with all these words."""

    def refused(*words, **texts):
        with pytest.raises(UsageError) as caught:
            read(**texts)
        message = str(caught.value)
        assert all(word in message for word in words), message
        assert "\n" not in message and len(message) < 250

    return refused


@hypothesis.settings(deadline=None, derandomize=True, max_examples=50)
@hypothesis.given(st.lists(st.tuples(finite, st.integers(-(10**20), 10**20), labels), min_size=1, max_size=5))
def test_numbers_and_labels_are_read_as_written(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("csv") / "c.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("label", "a", "b"), *((label, repr(a), b) for a, b, label in rows)])
    table = tabular_io.read_context(str(path), "label")
    np.testing.assert_array_equal(table.features.to_numpy(), [[a, float(b)] for a, b, _ in rows])
    assert list(table.labels) == [label.strip() for _, _, label in rows]


def test_columns_of_queries_are_found_by_their_names(read):
    _, queries = read(queries="b,label,a\n6,nothing,5\n")
    assert queries.features.to_numpy().tolist() == [[5, 6]] and list(queries.features) == ["a", "b"]
    context, _ = read("a,b, kind \n1,2,x\n", label="kind ")
    assert list(context.labels) == ["x"]
    context, _ = read("a,b,label\nTrue,1,x\nfalse,2,y\n")
    assert context.features["a"].tolist() == [1, 0]


@pytest.mark.parametrize("field", ["x", "nan", "NA", "inf", "-Infinity", "1e400", "1_0", "0x1", '"1,5"', "true", ""])
def test_a_field_that_is_no_finite_number_is_named(refused, field):
    words = "has no value" if not field else repr(field.strip('"')), "row 2 (line 3), column b: "
    refused("c.csv", *words, context=f"a,b,label\n1,2,x\n1,{field},y\n")
    refused("q.csv", *words, queries=f"a,b\n1,2\n1,{field}\n")


def test_what_is_missing_is_named(refused):
    refused("row 2 (line 3): has no label", context="a,b,label\n1,2,x\n1,2, \n")
    refused("c.csv: no column named label, only a, b, Label; ", "--label", context="a,b,Label\n1,2,x\n")
    refused("no column named label", "is the separator ';'?", context="a;b;label\n1;2;x\n")
    refused("no column named label", "looks like data", context="1,2,x\n3,4,y\n")
    refused("c.csv: no features", context="label\nx\n")
    refused("c.csv: holds no examples", context="a,b,label\n")
    refused("q.csv: holds no examples", queries="a,b\n")
    refused("q.csv: has not the features of the context; in one of them only: b, c", queries="a,c,name\n1,2,me\n")
    refused("in one of them only", "and 27 more", queries=f"{','.join(f'{n:099}' for n in range(30))}\n{'1,' * 29}1\n")
    refused("row 1 (line 3), column a b: 'z' is no", context='label,"a\nb"\nx,z\n')
    refused("in one of them only", "is the separator a tab?", queries="a\tb\n1\t2\n")


def test_numbers_of_an_npz_are_finite(tmp_path):
    path = str(tmp_path / "c.NPZ")
    for inputs, given, words in (
        (np.array([[1, np.inf]]), ["x"], r"row 1, column 1: inf is no finite number"),
        (np.array([[1j]]), ["x"], "inputs must be numbers, not complex128"),
        (np.ones((2, 2)), ["x"], "2 inputs, but 1 labels"),
        (np.ones((2, 2)), "x", r"2 inputs, but labels of shape \[\]"),
        (np.ones((2, 2)), [1, 1.5], "labels must be whole numbers or text, not float64"),
        (np.ones((2, 2)), np.zeros(2, "M8[s]"), "labels must be whole numbers or text"),
        (np.ones((2, 2)), [1, np.nan], r"row 2: has no label"),
    ):
        with open(path, "wb") as file:
            np.savez(file, inputs=inputs, labels=np.array(given))
        with pytest.raises(UsageError, match=words):
            tabular_io.read_context(path, "label")
    with open(path, "wb") as file:
        np.savez(file, inputs=np.ones((2, 2, 2)), labels=np.array([[1], [2]]))
    table = tabular_io.read_context(path, "label")
    assert table.features.shape == (2, 4) and table.labels.tolist() == [1, 2]


def test_a_query_far_from_the_context_is_named(read):
    for value, scale in (("1e12", False), ("1e12", True), ("1e30", False), ("1e30", True)):
        context, queries = read(queries=f"b,a\n1,2\n{value},1\n")
        if value == "1e12":
            tabular_io.check_range(context, queries, shared_scale=scale)
            continue
        with pytest.raises(UsageError, match=r"q.csv: row 2 \(line 3\), column b: 1e\+30 is more than 1e\+15 standard"):
            tabular_io.check_range(context, queries, shared_scale=scale)


def test_one_stream_is_read_once(tmp_path):
    file = tmp_path / "c.csv"
    file.write_text("")
    tabular_io.check_both_can_be_read(str(file), str(file))
    tabular_io.check_both_can_be_read(str(file), "/dev/stdin")
    tabular_io.check_both_can_be_read("none.csv", "none.csv")
    for both in (("/dev/stdin", "/dev/fd/0"), ("/dev/zero", "/dev/zero")):
        with pytest.raises(UsageError, match="the same stream, which can be read once"):
            tabular_io.check_both_can_be_read(*both)
