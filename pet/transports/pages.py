"""Pages that people look at in a browser: one file each, with the style and the script that all of them share.

A page stands as HTML beside the code that serves it, with `/* page.css */` and `/* page.js */` where the shared parts go, so
that a browser fetches one thing. Its policy lets nothing run but its one style and its one script, and nothing load but
answers of the same server. This file knows nothing of what a page shows.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from importlib import resources
from typing import Final

_SHARED: Final = ("page.css", "page.js")


@dataclass(frozen=True, slots=True)
class Page:
    """What a server answers with.

    Attributes:
        text: HTML.
        headers: that go with it; its policy is one of them.
    """

    text: str
    headers: dict[str, str]


def read_page(package: str, name: str) -> Page:
    """Read a page and put the shared parts into it.

    Args:
        package: whose file it is.
        name: of the file; it has one style and one script.
    """
    text = resources.files(package).joinpath(name).read_text("utf-8")
    for part in _SHARED:
        text = text.replace(f"/* {part} */", resources.files("pet.transports").joinpath(part).read_text("utf-8"))
    allowed = ["default-src 'none'", "connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"]
    allowed += [f"{element}-src '{_hash_of(text, element)}'" for element in ("script", "style")]
    headers = {"content-security-policy": "; ".join(allowed), "cache-control": "no-cache"}
    return Page(text, {**headers, "x-content-type-options": "nosniff", "referrer-policy": "no-referrer"})


def _hash_of(page: str, element: str) -> str:
    """Return the hash by which a browser knows the only script, or style, that may run."""
    found = re.search(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
    assert found is not None, f"a page has one {element}"
    return "sha256-" + base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()
