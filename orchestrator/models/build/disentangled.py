"""How do DeBERTa's scores depend on distance? Pure, but for the builder it is given.

Theory of operation. To the scores of content come two more terms: query · key of the distance, and key · query of the distance, where
the keys and queries of distances are projections of one table (He et al., 2021, "disentangled attention"). The published code multiplies
with the whole table and then gathers an element per pair of tokens. Here the rows of the distances that occur in this batch are taken
first (2 · length of them; the projected tables are constants of the graph), then multiplied, and the rows are shifted against each
other by one reshape: no gather per element, and for short texts a few columns instead of 512.

The shift: row i of a matrix [length, 2 · length] holds scores by distance, from −(length − 1) on. Score (i, j) is its column
j − i + length − 1; in one flat array that is element i · (2 · length − 1) + j + length − 1: leave out the first length − 1 elements and
rows of 2 · length − 1 have their columns in place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from orchestrator.models.build.encoder import Norm
    from orchestrator.models.build.graph import GraphBuilder


@dataclass(frozen=True, slots=True)
class Disentangled:
    table: str
    """Embeddings of distances, [2 · span, width]."""
    norm: Norm | None
    """Of that table's rows."""
    span: int
    buckets: int
    """0: every distance has a row of its own."""
    farthest: int
    key_of_distance: bool
    """Whether query · key of the distance counts (`c2p`)."""
    query_of_distance: bool
    """Whether key · query of the distance counts (`p2c`)."""

    @property
    def terms(self) -> int:
        """How many products make a score: scores are divided by √(terms · width of a head)."""
        return 1 + self.key_of_distance + self.query_of_distance


def buckets_of(disentangled: Disentangled, distances: np.ndarray) -> np.ndarray:
    """The bucket of each distance: itself up to half of the buckets, logarithmic from there. Odd in the distance."""
    if not disentangled.buckets:
        return distances
    middle = disentangled.buckets // 2
    far = np.maximum(np.abs(distances), middle).astype(np.float32)
    growth = np.log(far / np.float32(middle)) / np.log(np.float32((disentangled.farthest - 1) / middle))
    bucket = np.ceil(growth * np.float32(middle - 1)).astype(np.int64) + middle
    found: np.ndarray = np.where(np.abs(distances) <= middle, distances, np.sign(distances) * bucket)
    return found


def rows_of(disentangled: Disentangled, distances: np.ndarray) -> np.ndarray:
    """The row of the table for each distance, int64."""
    rows: np.ndarray = np.clip(buckets_of(disentangled, distances) + disentangled.span, 0, 2 * disentangled.span - 1)
    return rows.astype(np.int64)


@dataclass(frozen=True, slots=True)
class Distances:
    """Names of values that all layers share, for one batch."""

    key_rows: str
    """Rows of the table by place of the key − place of the query, from −(length − 1) on, 2 · length of them."""
    query_rows: str
    """The same by place of the query − place of the key."""
    heads: str
    """The shape [batch, length, heads, width of a head]."""
    flat: str
    wide: str
    """The shape [batch, heads, length, 2 · length − 1]."""
    start: str
    end: str
    length: str
    zero: str
    axis: str


def emit_distances(
    graph: GraphBuilder, disentangled: Disentangled, ids: str, positions: int, heads: int, head_width: int
) -> Distances:
    by_offset = np.arange(1 - positions, positions + 1)  # one more than there are, so that rows are of even length
    tables = {
        "key_rows": rows_of(disentangled, -by_offset),
        "query_rows": rows_of(disentangled, by_offset),
    }

    def number(name: str, *values: int) -> str:
        return graph.constant(f"distance.{name}", np.array(values, np.int64))

    def node(name: str, operator: str, *inputs: str) -> str:
        return graph.node(operator, list(inputs), f"distance.{name}")

    def join(name: str, *inputs: str) -> str:
        return graph.node("Concat", list(inputs), f"distance.{name}", axis=0)

    one = number("one", 1)
    batch_length = node("batch_length", "Shape", ids)
    batch = node("batch", "Slice", batch_length, number("zero", 0), one)
    length = node("length", "Slice", batch_length, one, number("two", 2))
    first = node("first", "Sub", number("positions", positions), length)
    last = node("last", "Add", number("positions_again", positions), length)
    rows = {
        name: node(name, "Slice", graph.constant(f"distance.all_{name}", table), first, last)
        for name, table in tables.items()
    }
    twice = node("twice", "Add", length, length)
    row = node("row", "Sub", twice, one)
    start = node("start", "Sub", length, one)
    size = node("size", "Mul", length, row)
    many = number("heads", heads)
    return Distances(
        key_rows=rows["key_rows"],
        query_rows=rows["query_rows"],
        heads=join("heads_shape", batch, length, many, number("head_width", head_width)),
        flat=join("flat_shape", batch, many, number("rest", -1)),
        wide=join("wide_shape", batch, many, length, row),
        start=start,
        end=node("end", "Add", start, size),
        length=length,
        zero=number("start_zero", 0),
        axis=number("last_axis", -1),
    )


def emit_bias(
    graph: GraphBuilder,
    shared: Distances,
    at: str,
    query: str,
    key: str,
    key_table: np.ndarray | None,
    query_table: np.ndarray | None,
) -> str:
    """What distances add to the scores, float32 [batch, heads, length, length].

    `query` and `key` name projections [batch · length, width], already with what scales the scores. The tables are the projected
    embeddings of distances, [heads, width of a head, 2 · span]; None where the term does not count.
    """
    terms = []
    if key_table is not None:
        terms.append(_by_distance(graph, shared, f"{at}.by_query", query, key_table, shared.key_rows))
    if query_table is not None:
        by_key = _by_distance(graph, shared, f"{at}.by_key", key, query_table, shared.query_rows)
        terms.append(graph.node("Transpose", [by_key], f"{at}.by_key_turned", perm=[0, 1, 3, 2]))
    return terms[0] if len(terms) == 1 else graph.node("Add", terms, f"{at}.bias")


def _by_distance(graph: GraphBuilder, shared: Distances, at: str, value: str, table: np.ndarray, rows: str) -> str:
    """[batch, heads, length, length]: row i, column j is value i times the row of the table for the distance of j from i."""
    split = graph.node("Reshape", [value, shared.heads], f"{at}.split")
    split = graph.node("Transpose", [split], f"{at}.heads", perm=[0, 2, 1, 3])
    here = graph.node("Gather", [graph.constant(f"{at}.table", table), rows], f"{at}.here", axis=2)
    scores = graph.node("MatMul", [split, here], f"{at}.scores")
    flat = graph.node("Reshape", [scores, shared.flat], f"{at}.flat")
    shifted = graph.node("Slice", [flat, shared.start, shared.end, shared.axis], f"{at}.shifted")
    wide = graph.node("Reshape", [shifted, shared.wide], f"{at}.wide")
    return graph.node("Slice", [wide, shared.zero, shared.length, shared.axis], at)
