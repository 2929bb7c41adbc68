"""The leases of a stack, and who may not be disturbed."""

import time

import pytest

from gpicl_flax.errors import GpiclError, Preempted
from gpicl_flax.records import lease, stack_lease
from gpicl_flax.records.run_folder import DONE, RunFolder
from gpicl_flax.runtime.preemption import StopRequest


@pytest.fixture
def folders(tmp_path):
    return [RunFolder(tmp_path / name) for name in "abc"]


def test_a_stack_is_held_as_a_whole(folders):
    with stack_lease.hold(folders) as check:
        check()
        assert all(lease.newest(folder).holds for folder in folders)
    assert [lease.newest(folder).why for folder in folders] == ["done"] * 3


def test_or_not_at_all(other_holds, folders):
    other_holds(folders[1])
    folders[2].mark(DONE)
    with pytest.raises(stack_lease.LeaseUnavailable) as caught, stack_lease.hold(folders):
        raise AssertionError("nothing may be written now")
    assert set(caught.value.by) == {1, 2} and caught.value.by[2] is None
    assert str(caught.value.by[1]) == "host tpu-7, process 12"
    assert [lease.newest(folder).holds for folder in folders] == [False, True, False]
    assert lease.newest(folders[0]).why == ""


def test_of_another_host_a_sign_of_life_is_waited_for(other_holds, folders):
    folder, stop, waited = folders[0], StopRequest(), []
    other_holds(folder, time=time.time() - 30)

    def sleep(seconds):
        waited.append(seconds)
        if len(waited) == 4:
            other_holds(folder)

    with pytest.raises(GpiclError, match=r"is being trained by host tpu-7 \(process 12\)"):
        stack_lease.wait_until_available(folder, stop, sleep)
    assert len(waited) == 4


def test_and_when_none_comes_the_run_is_to_be_had(other_holds, folders):
    folder, stop = folders[0], StopRequest()
    other_holds(folder, time=time.time() - 89.8)
    stack_lease.wait_until_available(folder, stop, lambda seconds: time.sleep(0.05))
    with stack_lease.hold([folder]):
        assert lease.newest(folder).number == 2


def test_who_waits_for_it_stops_when_told_to(other_holds, folders):
    stop = StopRequest()
    other_holds(folders[0])
    with pytest.raises(Preempted):
        stack_lease.wait_until_available(folders[0], stop, lambda seconds: setattr(stop, "requested", True))
