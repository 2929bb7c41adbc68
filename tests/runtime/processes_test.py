import pytest

from gpicl_flax.runtime import processes


def test_few_runs_need_no_further_process(monkeypatch):
    monkeypatch.setattr(processes.os, "cpu_count", lambda: 64)
    assert [processes.fastest(runs) for runs in (1, 99, 100, 2000)] == [1, 1, 4, 4]
    monkeypatch.setattr(processes.os, "cpu_count", lambda: None)
    assert processes.fastest(2000) == 1


@pytest.mark.slow
def test_results_come_in_the_order_of_the_work():
    with processes.executor(2, "math") as pool:
        assert list(pool.map(abs, [-3, 1, -2], chunksize=2)) == [3, 1, 2]
