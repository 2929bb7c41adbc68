"""Two processes take the same action after each dispatch: the largest that one of them wanted a dispatch before."""

SCRIPT = """
import jax
from gpicl_flax.runtime import distributed
from gpicl_flax.training.action_sync import Action, ActionSync

distributed.connect()
wanted = [
    ["CONTINUE", "SAVE", "CONTINUE", "STOP", "SAVE", "CONTINUE"],
    ["CONTINUE", "CONTINUE", "SAVE", "SAVE", "SAVE", "STOP"],
][jax.process_index()]
sync = ActionSync()
taken = [sync(Action[name]).name for name in wanted]
if distributed.is_primary():
    print(*taken)
else:
    assert taken == ["CONTINUE", "CONTINUE", "SAVE", "SAVE", "STOP", "SAVE"], taken
distributed.disconnect()
"""


def test_two_processes_do_together_what_one_of_them_wished_a_dispatch_before(start_job):
    codes, outputs = start_job(["-c", SCRIPT]).wait()
    assert codes == [0, 0], outputs
    assert outputs[0].split() == ["CONTINUE", "CONTINUE", "SAVE", "SAVE", "STOP", "SAVE"]
