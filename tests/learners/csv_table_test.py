"""CSV files as people write them: what is read, and which mistakes are named."""

import bz2
import csv
import gzip
import io
import lzma
import os
import threading
import zipfile

import hypothesis
import hypothesis.strategies as st
import pytest

from gpicl_flax.errors import UsageError
from gpicl_flax.learners import csv_table

# Any text but what is not kept: blanks at the ends, characters that UTF-8 does not have, zero bytes.
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6).map(str.strip)
names = st.lists(texts.filter(lambda text: text not in ("", "Unnamed: 0")), min_size=1, max_size=5, unique=True)
settings = hypothesis.settings(deadline=None, derandomize=True, max_examples=100)


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """(content) -> the table in a file of that text or these bytes."""
    path = tmp_path_factory.mktemp("csv") / "table.csv"

    def read(content):
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return csv_table.read(str(path))

    return read


@pytest.fixture
def refused(read):
    """(content, *words): it is refused in one line with all these words."""

    def refused(content, *words):
        with pytest.raises(UsageError) as caught:
            read(content)
        message = str(caught.value)
        assert all(word in message for word in words), message
        assert "\n" not in message and len(message.partition("table.csv")[2]) < 200

    return refused


def written(header, rows, **form):
    buffer = io.StringIO(newline="")
    csv.writer(buffer, **form).writerows([header, *rows])
    return buffer.getvalue()


@settings
@hypothesis.given(st.data(), names, st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_what_a_writer_wrote_is_read(read, data, header, ending, all_quoted):
    row = st.lists(texts, min_size=len(header), max_size=len(header)).filter(any)
    rows = data.draw(st.lists(row, max_size=4))
    form = {"quoting": csv.QUOTE_ALL if all_quoted else csv.QUOTE_MINIMAL, "lineterminator": ending}
    found = read(written(header, rows, **form))
    assert (found.names, found.rows) == (header, rows)


@settings
@hypothesis.given(st.lists(st.integers(1, 5), max_size=5), st.integers(1, 5))
def test_rows_have_as_many_fields_as_the_header(read, counts, num_columns):
    header, rows = [f"c{n}" for n in range(num_columns)], [["1"] * count for count in counts]
    wrong = [number for number, count in enumerate(counts, 1) if count != num_columns]
    if not wrong:
        assert read(written(header, rows)).rows == rows
        return
    with pytest.raises(UsageError) as caught:
        read(written(header, rows))
    number = wrong[0]
    assert f"row {number} (line {number + 1}) has {counts[number - 1]} field" in str(caught.value)


@settings
@hypothesis.given(names, st.integers(0, 3), st.lists(st.sampled_from(["", " ", "\t", "  "]), min_size=4, max_size=4))
def test_blanks_around_fields_and_commas_after_them_change_nothing(read, header, num_commas, blanks):
    rows = [[str(n)] * len(header) for n in range(3)]
    plain = written(header, rows, quoting=csv.QUOTE_ALL)
    assert (read(plain).names, read(plain).rows) == (header, rows)
    lines = [",".join(f"{blanks[0]}{field}{blanks[1]}" for field in row) for row in rows]
    found = read("\n".join([plain.partition("\r\n")[0], *(f"{line}{',' * num_commas}{blanks[2]}" for line in lines)]))
    if "\n" not in "".join(header) and "\r" not in "".join(header):
        assert (found.names, found.rows) == (header, rows)


def test_lines_are_those_of_the_file(read):
    found = read('\n a, b \n\n1,"two\nlines"\n  \n3,4\n\n')
    assert (found.names, found.rows, found.lines) == (["a", "b"], [["1", "two\nlines"], ["3", "4"]], [4, 7])
    assert read("\ufeffa\r1\r2").rows == [["1"], ["2"]]
    assert read('a\n1\n""\n').rows == [["1"], [""]]  # an empty field, not an empty line


def test_a_quotation_mark_is_closed(read, refused):
    refused('a,b\n1,2\n3,"4\n5,6\n', "line 3", "a quotation mark is opened and never closed")
    assert read('a,b\n5" pipe,"x"y\n').rows == [['5" pipe', "xy"]]
    refused(f"a\n{'x' * 200_000}\n", "line 2", "not readable as CSV")


def test_compressed_files_are_read(read, refused):
    text = b"a,b\n1,2\n"
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.csv", text)
    for data in (gzip.compress(text), bz2.compress(text), lzma.compress(text), archive.getvalue()):
        assert read(data).rows == [["1", "2"]]
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("b.csv", text)
    refused(archive.getvalue(), "a spreadsheet of 2 files; save it as CSV")
    refused(gzip.compress(text)[:-6], "not a readable CSV file")
    for data in ("ä,b\n".encode("latin-1"), "a,b\n".encode("utf-16")):
        refused(data, "not a readable CSV file (byte 0 is not UTF-8)")


def test_names_of_columns_are_there_and_differ(refused):
    for empty in ("", "\n \n", '""\n'):
        refused(empty, "it is empty")
    refused("a,,b\n1,2,3\n", "column 2 has no name")
    refused("a,b,\n1,2,3\n", "column 3 has no name")
    refused("a,b, a\n1,2,3\n", "2 columns are named 'a'")
    refused("1,1,cat\n2,2,dog\n", "2 columns are named '1'", "'1,1,cat' looks like data: the header must come first")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a,b\n1,5,2,5\n", ["row 1 (line 2) has 4 fields, the header has 2", "a point and no comma"]),
        ("a,b\n1,2,\n3,4\n", ["row 1 (line 2)", "it ends with a comma, as other rows do not"]),
        ("a;b\n1,5;2,5\n", ["row 1 (line 2) has 3 fields", "the header has one column, 'a;b': is the separator ';'?"]),
        ("# by me\na,b\n1,2\n", ["row 1 (line 2)", "'# by me' looks like a comment"]),
    ],
)
def test_a_row_of_another_length_comes_with_its_likely_reason(refused, content, words):
    refused(content, *words)


@pytest.mark.parametrize(
    ("content", "name"), [("a;b\n1;2\n", "';'"), ("a\tb\n1\t2\n", "a tab"), ("a|b\n", "'|'"), ("a b\n", "a blank")]
)
def test_another_separator_is_suspected(read, content, name):
    assert f"is the separator {name}?" in read(content).doubt
    assert read("a\n1\n").doubt == ""


@pytest.mark.parametrize(
    "content",
    [",a\n0,x\n1,y\n", ",a\n7,x\n3,y\n", "Unnamed: 0,a\n0,x\n1,y\n", '"","a"\n"r1","x"\n"r2","y"\n'],
)
def test_a_first_column_without_a_name_numbers_the_rows(read, caplog, content):
    found = read(content)
    assert (found.names, found.rows) == (["a"], [["x"], ["y"]])
    [record] = caplog.records
    assert "the first column has no name and numbers the rows; it is left out" in record.getMessage()


def test_a_first_column_of_measurements_is_not_taken_for_numbers_of_rows(read, refused, caplog):
    refused(",a\n0.5,x\n1.5,y\n", "column 1 has no name")
    assert read("Unnamed: 0,a\n0.5,x\n").names == ["Unnamed: 0", "a"]
    assert not caplog.records


def test_what_is_no_file(tmp_path):
    for path, words in (
        (tmp_path, "is a folder, not a file"),
        (tmp_path / "none.csv", "none.csv: no such file"),
        ("/dev/zero", "/dev/zero: is a device, not a file"),
    ):
        with pytest.raises(UsageError, match=words):
            csv_table.read(str(path))


def test_a_pipe_is_read(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("a\n1\n",), daemon=True)
    writer.start()
    assert csv_table.read(str(pipe)).rows == [["1"]]
    writer.join()
