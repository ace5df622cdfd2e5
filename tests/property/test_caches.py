"""Whatever is put and asked for in whatever order: is the bound kept, and is an answer always the last one given for its key?"""

from __future__ import annotations

from collections import OrderedDict

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.gateway.caches import ENTRY_BYTES, LARGEST_SHARE, BoundedCache

BUDGET = 16 * 1000

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 30), st.integers(0, 1200)),
        st.tuples(st.just("get"), st.integers(0, 30), st.just(0)),
    ),
    max_size=80,
)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_a_cache_is_the_newest_entries_that_fit(steps: list[tuple[str, int, int]]) -> None:
    cache: BoundedCache[int, int] = BoundedCache(BUDGET)
    known: OrderedDict[int, tuple[int, int]] = OrderedDict()
    for number, (what, key, size) in enumerate(steps):
        if what == "get":
            found = cache.get(key)
            assert found == (known[key][0] if key in known else None)
            if key in known:
                known.move_to_end(key)
        else:
            cache.put(key, number, size)
            if (size + ENTRY_BYTES) * LARGEST_SHARE <= BUDGET:
                known.pop(key, None)
                known[key] = (number, size + ENTRY_BYTES)
                while sum(taken for _, taken in known.values()) > BUDGET:
                    known.popitem(last=False)
        cache.validate()
    report = cache.report()
    assert (report.entries, report.bytes) == (len(known), sum(taken for _, taken in known.values()))
    assert report.hits + report.misses == sum(what == "get" for what, _, _ in steps)
