import io

from gpicl_flax.terminal import progress

ROW = {"loss": 2.25, "accuracy_last": 0.125, "plateau": True}


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_one_line_that_rewrites_itself(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    clock = iter(range(100))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    stream = Terminal()
    show = progress.ProgressLine(100, stream=stream)
    for step in (10, 20, 90):
        show({"step": step, **ROW})
    show({"step": 100, **ROW, "plateau": False})
    lines = stream.getvalue().split("\r\033[K")[1:]
    assert lines[0].startswith("step 10/100  steps/s: -  loss 2.250  last accuracy 12.5%  on the plateau")
    assert "10.0 steps/s  0:08 left" in lines[1]
    assert "40.0 steps/s  0:00 left" in lines[2]
    assert lines[3].endswith("off the plateau\n") and stream.getvalue().count("\n") == 1


def test_the_line_never_wraps(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    stream = Terminal()
    progress.ProgressLine(100, stream=stream)({"step": 10, **ROW})
    assert len(stream.getvalue().removeprefix("\r\033[K")) == 39


def test_a_closed_pipe_does_not_stop_the_run():
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    progress.ProgressLine(100, stream=Closed())({"step": 10, **ROW})


def test_elsewhere_lines_are_plain_and_few(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    show = progress.ProgressLine(1000, stream=stream)
    for step in range(1, 1001):
        now[0] += 0.1
        show({"step": step, **ROW})
    lines = stream.getvalue().split("\n")
    assert "\r" not in stream.getvalue() and "\033" not in stream.getvalue()
    assert 8 <= len(lines) <= 13
    assert lines[-2].startswith("step 1,000/1,000")


def test_slow_steps_have_a_speed_too(monkeypatch):
    clock = iter(range(0, 10_000, 60))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    stream = io.StringIO()
    show = progress.ProgressLine(10, stream=stream)
    for step in (2, 4):
        show({"step": step, **ROW})
    assert "step 4/10  0.033 steps/s  3:00 left" in stream.getvalue()


def test_a_stack_has_one_line_of_its_means(monkeypatch):
    clock = iter(range(0, 10_000, 60))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    stream = io.StringIO()
    show = progress.ProgressLine(30, num_members=3, stream=stream)

    def rows(steps):  # of each member, None for one that has ended
        for member, step in enumerate(steps):
            if step is not None:
                show({"step": step, "loss": float(member), "accuracy_last": 0.5, "plateau": member > 0}, member)
        return stream.getvalue().splitlines()

    lines = rows((20, 5, 15))
    assert len(lines) == 1 and "step 20/30" in lines[0]
    lines = rows((30, 10, 20))  # the first ends here
    assert len(lines) == 2 and "step 30/30" in lines[1]
    lines = rows((None, 15, 25))
    assert len(lines) == 3 and "step 15/30" in lines[2]
    rows((None, None, 30))  # the second has diverged
    lines = rows((None, None, 30))
    assert "step 30/30" in lines[-1] and "loss 1.000" in lines[-1] and "1 of 3 members off the plateau" in lines[-1]


def test_who_stops_early_has_ended(monkeypatch):
    clock = iter(range(0, 10_000, 60))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setenv("COLUMNS", "120")
    stream = Terminal()
    show = progress.ProgressLine(100, num_members=2, stream=stream)
    show({"step": 10, **ROW}, 0)
    show({"step": 10, **ROW, "plateau": False}, 1)
    show({"step": 20, **ROW, "stopped_early": "plateau"}, 0)
    show({"step": 20, **ROW, "plateau": False}, 1)
    for step in (30, 40):
        show({"step": step, **ROW, "loss": 1.25, "plateau": False}, 1)
    assert "step 40/100" in stream.getvalue() and "loss 1.750" in stream.getvalue().rpartition("\r")[2]
    assert stream.getvalue().rstrip().endswith("1 of 2 members off the plateau")

    alone = Terminal()
    progress.ProgressLine(100, stream=alone)({"step": 20, **ROW, "stopped_early": "plateau"})
    assert alone.getvalue().endswith("on the plateau\n")


def test_other_text_takes_the_place_of_an_unfinished_line():
    stream = Terminal()
    show = progress.ProgressLine(100, stream=stream)
    show({"step": 10, **ROW})
    stream.write(f"{progress.erase(stream)}warning: the disk is full\n")
    *_, last = stream.getvalue().split("\r\033[K")
    assert last == "warning: the disk is full\n"
    assert progress.erase(io.StringIO()) == ""


def test_long_runs_count_hours(monkeypatch):
    clock = iter(range(0, 10_000, 60))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    stream = io.StringIO()
    show = progress.ProgressLine(610, stream=stream)
    for step in (5, 10):
        show({"step": step, **ROW})
    assert "  2:00:00 left" in stream.getvalue()
