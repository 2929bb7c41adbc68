from gpicl_flax.training.action_sync import Action, ActionSync


def test_a_single_process_does_at_once_what_it_wishes():
    sync = ActionSync()
    assert [sync(wish) for wish in (Action.CONTINUE, Action.STOP, Action.SAVE)] == [
        Action.CONTINUE,
        Action.STOP,
        Action.SAVE,
    ]
    assert Action.STOP > Action.SAVE > Action.CONTINUE
