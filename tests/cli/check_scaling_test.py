"""`gpicl check_scaling`, as a user types it."""

import json

import pytest

from gpicl_flax.cli import check_scaling
from gpicl_flax.cli.main import main, parser
from gpicl_flax.runs import coordinate_check

ROWS = [
    coordinate_check.Row(name, "width", width, step, 0, layer, 1.0 + step, 0.1 * width ** (name == "standard"))
    for name in ("standard", "mup")
    for width in (4, 8, 16)
    for step in (1, 2)
    for layer in ("mlp_0", "logits")
]


@pytest.fixture
def checked(monkeypatch, quick):
    """Runs the command on the rows above; arguments -> what `check` was called with."""
    calls = []

    def check(run, **settings):
        calls.append(settings)
        return [row for row in ROWS if row.parametrization in settings["parametrizations"]]

    monkeypatch.setattr(coordinate_check, "check", check)

    def run(*arguments):
        assert main(["check_scaling", *quick, *arguments]) == 0
        return calls

    return run


def test_it_prints_sizes_slopes_and_verdicts(checked, capsys):
    (call,) = checked("--parametrization", "both", "--seeds", "3")
    assert call == {"axis": "width", "values": [], "parametrizations": ("standard", "mup"), "seeds": range(3)}
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[-10:] == ["width", "4", "width", "8", "width", "16", "step", "1", "step", "2"]
    assert lines[2].split() == ["logits", "3", "3", "3", "+1.00", "+1.00"]
    assert lines[-2].startswith("standard: not flat in width: the largest slope of a change is +1.00")
    assert lines[-1].startswith("mup: flat in width")


def test_it_writes_json_and_a_picture(checked, capsys, tmp_path):
    checked("--json", "--output", str(tmp_path / "check.svg"), "--widths", "4, 8,16", "--tolerance", "0.1")
    found = json.loads(capsys.readouterr().out)
    assert [verdict["flat"] for verdict in found["verdicts"]] == [True]
    assert len(found["sizes"]) == 12 and {row["layer"] for row in found["slopes"]} == {"mlp_0", "logits"}
    assert found["verdicts"][0]["tolerance"] == 0.1
    drawn = (tmp_path / "check.svg").read_text()
    assert "after 2 steps" in drawn or drawn.count('<g id="axes_') == 2


def test_widths_and_depths_are_checked_if_they_are_named(checked):
    calls = checked("--depths", "1,2")
    assert [(call["axis"], call["values"]) for call in calls] == [("depth", [1, 2])]
    del calls[:]
    checked("--depths", "1,2", "--widths", "4,8")
    assert [(call["axis"], call["values"]) for call in calls] == [("width", [4, 8]), ("depth", [1, 2])]


def test_mistakes_are_one_line_and_exit_2(refused, quick, tmp_path, capsys):
    refused(["check_scaling", *quick, "--output", str(tmp_path / "check.txt")], "must be a .png, .svg or .pdf")
    refused(["check_scaling", *quick, "--output", str(tmp_path / "none/check.png")], "there is no folder")
    refused(["check_scaling", "--gin_file", "gin/state_size.gin"], "gin/state_size.gin describes a sweep")
    refused(["check_scaling", *quick, "--gin_bindings", "Run.optimizer = @sgd()"], "LSTM.parametrization = 'mup' needs")
    refused(["check_scaling", *quick, "--widths", "4"], "at least two widths")
    for wrong in ("0,4", "four", "4,"):
        with pytest.raises(SystemExit):
            parser().parse_args(["check_scaling", *quick, "--widths", wrong])
    assert "must be a positive integer" in capsys.readouterr().err


def test_the_help_says_the_tolerance_that_is_used():
    from gpicl_flax.analysis.data import coordinates

    assert f"default {coordinates.TOLERANCE:g}" in check_scaling.TOLERANCE_HELP
