from gpicl_flax.training.action_sync import Agreement, Wish


def test_a_single_process_does_at_once_what_it_wishes():
    agreement = Agreement()
    assert [agreement(wish) for wish in (Wish.GO_ON, Wish.STOP, Wish.SAVE)] == [Wish.GO_ON, Wish.STOP, Wish.SAVE]
    assert Wish.STOP > Wish.SAVE > Wish.GO_ON
