import csv

import pandas as pd
import pytest
from etils import epath

from gpicl_flax.analysis.data import float32, table_file
from gpicl_flax.errors import UsageError


def test_text_is_as_it_is_unless_a_csv_file_may_not_keep_it():
    for text in ("10", "nan", "a,b", 'say "no"', "Zürich → 東京", " "):
        assert table_file.text_cell(text) == text
    for text in ("", '"quoted"', "two\nlines", "\x00", "\ud800"):
        assert table_file.text_cell(text).startswith('"')


@pytest.mark.parametrize("name", ["table.csv", "table.csv.gz"])
def test_values_come_back_and_pandas_reads_them(tmp_path, name):
    path = epath.Path(tmp_path / name)
    values = [
        ("10", 1 / 3),
        ("", float("inf")),
        ("nan", -0.0),
        ("a,\nb", 10),
        ("\ud800", [1, {"a": None}]),
        ("x", True),
    ]
    table_file.write(path, ["text", "n,1"], [{"text": text, "n,1": n} for text, n in values] + [{}], text={"text"})
    *rows, last = table_file.read(path, ["n,1", "text"])
    assert repr([(row.text("text"), row.json("n,1")) for row in rows]) == repr(values)
    assert "text" not in last and "n,1" not in last and last.line == 8
    table = pd.read_csv(path)
    assert table["n,1"][0] == str(1 / 3) and table["text"][3] == '"a,\\nb"'


def test_cells_of_many_numbers_are_read_whole(tmp_path):
    path, limit = epath.Path(tmp_path / "table.csv"), csv.field_size_limit()
    table_file.write(path, ["x"], [{"x": [0.1] * 100_000}], text=())
    assert table_file.read(path, ["x"])[0].json("x") == [0.1] * 100_000
    assert csv.field_size_limit() == limit


def test_two_columns_of_one_name_are_refused(tmp_path):
    path = epath.Path(tmp_path / "table.csv")
    path.write_text("a,a\n1,2\n")
    with pytest.raises(UsageError, match="two columns have one name"):
        table_file.read(path, ["a"])


def test_floats_of_float32_come_back_from_few_digits():
    value = {"a": [0.30000001192092896, float("nan"), float("inf"), 3], "b": 2.0**-149}
    assert float32.is_float32(value) and float32.shortened(value)["a"][0] == 0.3
    assert repr(float32.restored(float32.shortened(value))) == repr(value)
    assert not float32.is_float32(0.3) and not float32.is_float32({"a": [1e300]})
