from gpicl_flax.analysis.data import curves


def test_references_at_the_positions_of_a_curve_are_kept_and_others_left_out():
    values = {"accuracy": [0.1, 0.2, 0.3, 0.4], "accuracy_low": [0.0] * 4, "accuracy_high": [1.0] * 4}
    at_all = {"accuracy": [0.5] * 4}
    at_two = {"accuracy": [0.5, 0.6], "positions": [1, 3], "num_sequences": 64}
    columns = curves.by_position(values | {"references": {"ridge": at_all, "SVM": at_two}})
    assert curves.from_columns(columns) == values | {"references": {"ridge": at_all}}
    counted = {"positions": [4, 5, 6, 7]}
    columns = curves.by_position(values | counted | {"references": {"look-up": at_all | counted, "SVM": at_two}})
    assert curves.from_columns(columns) == values | counted | {"references": {"look-up": at_all}}
