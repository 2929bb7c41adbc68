"""Tables of a report, cell by cell."""

from gpicl_flax.analysis.data import study
from gpicl_flax.analysis.report import tables


def test_every_run_has_a_row_with_its_sizes_and_its_end(make_run, make_curve, tmp_path):
    curves = [make_curve("seen", last=0.9), make_curve("unseen", last=0.6), make_curve("unseen", "random", last=1.0)]
    make_run(tmp_path / "a", left_at=50, parameters=12_345, num_tasks=2**13, evaluations={100: curves}, model="LSTM")
    make_run(tmp_path / "b", left_at=None, ended=None, evaluations={}, seed=3)
    (tmp_path / "c").mkdir()
    (tmp_path / "c/config.gin").write_text("")  # has not begun
    table = tables.runs(study.load(tmp_path))
    rows = table.numbers.to_dict("records")
    shown = ("intervention", "tasks", "parameters", "state (paper)", "seed", "ended", "phase", "plateau left at")
    assert [rows[0][name] for name in shown] == ["LSTM", "2^13", "12,345", "10", "0", "DONE", "Generalize", "50"]
    assert [rows[1][name] for name in shown[3:]] == ["10", "3", "not yet", "Plateau", ""]
    assert [(row["seen"], row["unseen"]) for row in rows] == [("90.0%", "60.0%"), ("", ""), ("", "")]
    assert rows[2]["tasks"] == rows[2]["parameters"] == "" and rows[2]["phase"] == "unknown"
    shown = table._repr_html_()
    assert "<h3>Runs</h3>" in shown and "12,345" in shown
    assert shown.replace("h3", "h2") == table.html
