"""Does every sequence keep its ids, and does padding look like text?"""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.batching import rectangle

SEQUENCES = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=1, max_size=6)


@settings(max_examples=60)
@given(SEQUENCES)
def test_the_mask_shows_exactly_the_ids_that_came_in(sequences: list[list[int]]) -> None:
    flat = np.array([one for sequence in sequences for one in sequence], np.int32)
    ids, mask = rectangle(flat, [len(sequence) for sequence in sequences])
    assert ids.shape == mask.shape == (len(sequences), max(map(len, sequences)))
    assert ids.dtype == mask.dtype == np.int32
    for row, sequence in enumerate(sequences):
        assert ids[row][mask[row] == 1].tolist() == sequence
        assert mask[row].tolist() == sorted(mask[row].tolist(), reverse=True)
        assert set(ids[row][mask[row] == 0].tolist()) <= {sequence[-1]}
