"""Streams: named by purpose, stable, independent of the order in which they are drawn from."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.seeds import derive_seed, numpy_stream, torch_stream

names = st.lists(st.one_of(st.integers(0, 99), st.text("abc", min_size=1, max_size=3)), min_size=1, max_size=3)


def test_seed_of_a_purpose_never_changes() -> None:
    # The first 63 bits of sha256("7\x1ftrain\x1f1200"): another value means that no old run can be made again.
    assert derive_seed(7, "train", 1200) == 3101698149876084584


def test_streams_do_not_depend_on_the_order_of_work() -> None:
    purposes = [("batch", 0), ("batch", 1), ("noise", 0)]
    forward = {purpose: numpy_stream(3, *purpose).random(5).tolist() for purpose in purposes}
    backward = {purpose: numpy_stream(3, *purpose).random(5).tolist() for purpose in reversed(purposes)}
    assert forward == backward
    first, second = numpy_stream(3, "batch", 0), numpy_stream(3, "batch", 1)
    interleaved = np.array([[first.random(), second.random()] for _ in range(5)])
    assert interleaved.T.tolist() == [forward["batch", 0], forward["batch", 1]]


def test_global_generators_neither_matter_nor_move() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    expected = torch.rand(4, generator=torch_stream(3, "noise", 0))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(4, generator=torch_stream(3, "noise", 0)), expected)


@settings(max_examples=60, deadline=None)
@given(names, names, st.integers(0, 5), st.integers(0, 5))
def test_two_purposes_share_a_seed_only_if_they_are_the_same(
    first: list[int | str], second: list[int | str], seed_a: int, seed_b: int
) -> None:
    a, b = derive_seed(seed_a, *first), derive_seed(seed_b, *second)
    assert 0 <= a < 2**63
    # ("ab", "c") is not ("a", "bc"): names are kept apart.
    assert (a == b) == ((seed_a, list(map(str, first))) == (seed_b, list(map(str, second))))
