"""Does every file of the live page get served as what it is, from nowhere else, and under a policy that holds?"""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from orchestrator.dashboard import assets

FILES = assets.load()


class _Markup(HTMLParser):
    """Every element of the page with its attributes, and what stands inside scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inline = ""
        self.inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.inside = tag

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside in ("script", "style"):
            self.inline += data


@pytest.fixture
def markup() -> _Markup:
    parsed = _Markup()
    parsed.feed(FILES[assets.PAGE].body.decode())
    return parsed


def test_every_asset_has_the_content_type_that_nosniff_browsers_demand() -> None:
    wanted = {
        "html": "text/html; charset=utf-8",
        "js": "text/javascript; charset=utf-8",
        "css": "text/css; charset=utf-8",
        "svg": "image/svg+xml",
    }
    assert {name: asset.content_type for name, asset in FILES.items()} == {
        name: wanted[name.rpartition(".")[2]] for name in FILES
    }


def test_an_etag_is_quoted_and_changes_with_the_body_only() -> None:
    first = assets.asset("main.js", b"1")
    assert re.fullmatch(r'"[0-9a-f]{32}"', first.etag)
    assert first.etag == assets.asset("other.js", b"1").etag
    assert first.etag != assets.asset("main.js", b"2").etag


def test_a_file_of_unknown_kind_is_refused_by_name() -> None:
    with pytest.raises(assets.BrokenPackage, match=r"dashboard/static/logo\.exe: no content type is known"):
        assets.asset("logo.exe", b"MZ")


def test_a_file_without_a_suffix_is_refused_by_name() -> None:
    with pytest.raises(assets.BrokenPackage, match="dashboard/static/LICENSE: no content type is known"):
        assets.asset("LICENSE", b"")


def test_the_policy_allows_only_the_own_origin_and_nothing_inline() -> None:
    directives = dict(
        directive.strip().partition(" ")[::2] for directive in assets.HEADERS["Content-Security-Policy"].split(";")
    )
    assert directives == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": "'self'",
        "img-src": "'self' data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }


def test_the_headers_keep_browsers_from_guessing_leaking_and_serving_an_old_page() -> None:
    assert assets.HEADERS["X-Content-Type-Options"] == "nosniff"
    assert assets.HEADERS["Referrer-Policy"] == "no-referrer"
    assert assets.HEADERS["Cache-Control"] == "no-cache"


def test_the_page_carries_no_inline_script_style_or_handler(markup: _Markup) -> None:
    assert markup.inline.strip() == ""
    assert [
        (tag, name)
        for tag, attributes in markup.elements
        for name in attributes
        if name == "style" or name.startswith("on")
    ] == []


def test_every_file_the_page_names_is_an_asset_at_its_relative_address(markup: _Markup) -> None:
    named = [
        address
        for _, attributes in markup.elements
        for name in ("src", "href")
        if (address := attributes.get(name)) and not address.startswith("#")
    ]
    assert "dashboard/main.js" in named
    assert [address for address in named if address.removeprefix("dashboard/") not in FILES] == []


def test_every_module_a_module_imports_is_an_asset() -> None:
    imported = {
        name
        for asset in FILES.values()
        if asset.content_type.startswith("text/javascript")
        for name in re.findall(r'from "\./([^"]+)"', asset.body.decode())
    }
    assert imported
    assert imported - set(FILES) == set()


@pytest.mark.parametrize("name", sorted(FILES))
def test_no_file_names_an_external_address(name: str) -> None:
    found = re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}[^\s\"')]*", FILES[name].body.decode())
    # The name of the SVG namespace has the form of an address and is never fetched.
    assert [address for address in found if address != "http://www.w3.org/2000/svg"] == []


@pytest.mark.parametrize("name", sorted(name for name in FILES if name.endswith(".js")))
def test_no_module_parses_text_as_markup_or_code(name: str) -> None:
    body = FILES[name].body.decode()
    assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", body) == []
