"""Which files make up the live page, and under which headers are they served?

The page is `index.html`, served at `/dashboard`; every other asset is served at `/dashboard/NAME`. Its addresses are
relative to that, so that it also works behind a proxy that adds a prefix.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources

PAGE = "index.html"
"""The asset that `GET /dashboard` answers with."""

CONTENT_TYPES: dict[str, str] = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}

HEADERS: dict[str, str] = {
    # Everything comes from the orchestrator itself. Trusted types make the browser refuse any text that would be parsed as
    # HTML: names of models and instances come from outside and reach the page as text nodes only.
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "img-src 'self' data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Kept by the browser, asked again each time: after an upgrade no page mixes modules of two versions.
    "Cache-Control": "no-cache",
}
"""To be sent with every asset, the page included."""


@dataclass(frozen=True, slots=True)
class Asset:
    body: bytes
    content_type: str
    """Complete value of the `Content-Type` header."""
    etag: str
    """Complete value of the `ETag` header, quotes included; changes when and only when the body does."""


class BrokenPackage(Exception):
    """The installed package lacks its page, or carries a file that nobody knows how to serve."""


def load() -> dict[str, Asset]:
    """Every file of the page by its name (`index.html`, `main.js`, …), read once from the installed package.

    Raises BrokenPackage where the page is missing or a file has a suffix outside `CONTENT_TYPES`.
    """
    folder = resources.files(__package__) / "static"
    found: dict[str, Asset] = {}
    if folder.is_dir():
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
            if entry.is_file() and not entry.name.startswith("."):
                found[entry.name] = asset(entry.name, entry.read_bytes())
    if PAGE not in found:
        raise BrokenPackage(f"dashboard/static/{PAGE}: not in the installed package; install orchestrator again")
    return found


def asset(name: str, body: bytes) -> Asset:
    """One file as it is served. Raises BrokenPackage for a suffix outside `CONTENT_TYPES`."""
    suffix = name.rpartition(".")[2]
    if suffix not in CONTENT_TYPES:
        known = ", ".join(f".{suffix}" for suffix in CONTENT_TYPES)
        raise BrokenPackage(f"dashboard/static/{name}: no content type is known for it; the page is made of {known}")
    return Asset(body=body, content_type=CONTENT_TYPES[suffix], etag=f'"{hashlib.sha256(body).hexdigest()[:32]}"')
