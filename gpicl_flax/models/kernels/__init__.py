"""Recurrences whose state changes linearly, step by step and in parallel; the two are equal.

`matrix_state` is for heads whose state is a matrix, `vector_state` for states of one number a channel.
"""
