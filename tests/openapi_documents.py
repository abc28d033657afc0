"""The OpenAPI files of docs/openapi/, and a layer around an application that notices answers which they do not describe."""

import functools
import re
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[1] / "docs" / "openapi"
METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
#: What the router itself answers: there is no such path, or no such method of it.
ROUTER_STATUSES = {404, 405}


@functools.cache
def document(name: str) -> dict[str, Any]:
    """Return a file of the folder."""
    return yaml.load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def operations(name: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the operations of a file by method, in upper case, and path."""
    return {
        (method.upper(), path): item[method]
        for path, item in document(name)["paths"].items()
        for method in METHODS
        if method in item
    }


@functools.cache
def _patterns(name: str) -> list[tuple[re.Pattern[str], str]]:
    return [(re.compile(re.sub(r"\{\w+\}", "[^/]+", path) + "/?"), path) for path in document(name)["paths"]]


def is_described(name: str, method: str, path: str, status: int) -> bool:
    """Return whether a file has this answer; of paths that it does not have, any."""
    found = next((template for pattern, template in _patterns(name) if pattern.fullmatch(path)), None)
    operation = operations(name).get(("GET" if method == "HEAD" else method, found or ""))
    if operation is None:
        return found is None or status in ROUTER_STATUSES
    return str(status) in operation["responses"]


class CheckedAnswers:
    """An ASGI application around another one, which keeps the answers that a file does not describe."""

    def __init__(self, app: Any, name: str) -> None:
        self._app, self._name = app, name
        self.undescribed: set[tuple[str, str, int]] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def watch(message: Any) -> None:
            if message["type"] == "http.response.start":
                answer = scope["method"], scope["path"], message["status"]
                if not is_described(self._name, *answer):
                    self.undescribed.add(answer)
            await send(message)

        await self._app(scope, receive, watch)
