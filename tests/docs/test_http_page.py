"""Does docs/http.md name the routes, statuses and tensors that there are, and no others?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from orchestrator.gateway import errors
from orchestrator.gateway.apis import huggingface, signatures
from orchestrator.gateway.apis.call import Served
from orchestrator.gateway.routes import Routes
from orchestrator.gateway.spec import Limits
from orchestrator.status import HeadStatus, ImageStatus, ModelStatus

PAGE = (Path(__file__).parents[2] / "docs" / "http.md").read_text(encoding="utf-8")


class Anything:
    """In place of pages, which are not called here."""

    def __getattr__(self, name: str) -> str:
        return name


def served(task: str) -> Served:
    image = ImageStatus(32, 32, 17, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)) if task == "image-classification" else None
    labels = ["x"] if task == "reranking" else ["entailment", "x"]
    head = HeadStatus(labels=labels, entailment=0 if task == "zero-shot-classification" else None)
    model = ModelStatus(
        id="m", task=task, architecture="bert", precision="fp32", engine="onnxruntime", max_seqlen=8, dimensions=4,
        digest="d", artefact="a", head=head, image=image,
    )  # fmt: skip
    return Served(model, Limits(), 100)


def rows(heading: str) -> list[list[str]]:
    """The cells of the tables under a heading."""
    part = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_route_is_on_the_page_and_no_other() -> None:
    pages: Any = Anything()
    table = Routes(pages, pages.stream, pages.tokenize, served("sentence-embedding"), keyed=False)
    named = set(re.findall(r"`((?:GET|POST) /[^`]*)`", PAGE))
    assert named - {"POST /predict"} == {f"{route.method} {route.pattern}" for route in table.all} - {"POST /predict"}
    for route in table.all:
        path = re.sub(r"\\{\w+\\}", ".+", re.escape(route.pattern))
        assert re.search(rf"curl .*\$H{path}(?=[\s\"?])", PAGE), f"no curl of {route.pattern}"


def test_what_wants_no_key_is_what_the_page_says() -> None:
    pages: Any = Anything()
    table = Routes(pages, pages.stream, pages.tokenize, served("sentence-embedding"), keyed=True)
    public = {f"{route.method} {route.pattern}": route.public for route in table.all}
    for cells in rows("What is served, and how it is")[2:]:
        for route in re.findall(r"`([^`]+)`", cells[0]):
            assert public[route] == (cells[2] == "yes"), route


def test_every_status_is_on_the_page_with_its_kinds() -> None:
    told = {int(cells[0]): set(re.findall(r"`([^`]+)`", cells[1])) for cells in rows("Statuses")[2:]}
    assert told == {status: set(errors.kinds(status)) for status in errors.STATUS.values()}


@pytest.mark.parametrize("task", huggingface.KINDS)
def test_the_tensors_of_every_task_are_on_the_page(task: str) -> None:
    cells = next(one for one in rows("Open Inference Protocol") if one[0] == task)
    first = signatures.forms(served(task))[0]
    taken = {spec.name for spec in (*first.required, *first.optional)}
    named = set(re.findall(r"`([a-z_]+)`", cells[1]))
    assert {spec.name for spec in first.required} <= named <= taken
    told = PAGE if "as text-classification" in cells[2] or "the same" in cells[2] else cells[2]
    given = {spec.name for spec in first.outputs} - ({"logits"} if task == "zero-shot-classification" else set())
    assert all(f"`{name}`" in told for name in given)
