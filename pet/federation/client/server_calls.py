"""What all calls to a federation server share: the user, signed requests, and reading their answers.

Every call is one signed request; maps are encrypted on top of TLS, and nothing secret is in a URL, an error or a log. Native
formats by default; `compat=True` speaks the vendor's, for servers that know no others.

Source: docs/spec/federation.md 2.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from pet.errors import FederationUnavailableError
from pet.federation.client.requests import SignedRequests
from pet.federation.formats.encoding import parse_json_object
from pet.federation.formats.users import read_key_file
from pet.federation.records import Mode
from pet.secret import Secret

#: A join waits for the broker and the admin, 30 s by default; the server answers a little later than that.
#: Longer than a server takes to start, also on a busy machine.
DEFAULT_START_SECONDS: Final = 15.0
DEFAULT_TIMEOUT_SECONDS: Final = 60.0
_Found = TypeVar("_Found")


class ServerCalls:
    """One user's requests to one server."""

    def __init__(
        self,
        url: str,
        customer_id: str,
        secret_key: Secret | str,
        *,
        authority: Path | None = None,
        compat: bool = False,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        start_seconds: float = DEFAULT_START_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Make a client; nothing is sent yet.

        Args:
            url: of the server, for example "https://node.example:8443". Plain http only to this machine.
            customer_id: the user.
            secret_key: base64 text, from `pet federation user add`.
            authority: PEM file of the only authority to trust; the system's if not given.
            compat: speak the vendor's formats, which are weak.
            timeout_seconds: for each request.
            start_seconds: how long each request waits for a server that does not listen yet.
            clock: Unix seconds.

        Raises:
            FederationValueError: the URL or the key cannot be used.
        """
        self._mode: Final = Mode.COMPAT if compat else Mode.NATIVE
        self._requests: Final = SignedRequests(
            url,
            customer_id,
            secret_key if isinstance(secret_key, Secret) else Secret(secret_key),
            mode=self._mode,
            authority=authority,
            timeout_seconds=timeout_seconds,
            start_seconds=start_seconds,
            clock=clock,
        )

    @classmethod
    def from_key_file(cls, url: str, path: Path | str, *, authority: Path | None = None, compat: bool = False) -> Self:
        """Make a client with user and key from the file that `pet federation user add` wrote.

        Raises:
            SettingsError: the file is something else, or others can read it.
            FederationValueError: the URL cannot be used.
        """
        name, key = read_key_file(Path(path))
        return cls(url, name, key, authority=authority, compat=compat)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self._requests.url!r}, {self._requests.customer_id!r})"

    def close(self) -> None:
        """Give back connections."""
        self._requests.close()

    def info(self, project_id: str) -> dict[str, Any]:
        """Return the federation as the peer sees it (`FederationInfo`)."""
        values = self._requests.call("GET", f"fedml/{project_id}/info", decrypts="fedInfoEncrypted")
        return parse_json_object(values["fedInfoEncrypted"]) or {}

    def _read(self, values: dict[str, Any], reader: Callable[[dict[str, Any]], _Found]) -> _Found:
        """Read the entities of an answer.

        Raises:
            FederationUnavailableError: they are not what was asked for.
        """
        try:
            return reader(values)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            problem = type(error).__name__
        raise FederationUnavailableError(
            f"{self._requests.url}: expected what was asked for in the answer, got another form ({problem})"
        )

    def _get(self, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        return self._requests.call("GET", f"fedml/{path}".rstrip("/"), query)

    def _post(
        self, path: str, entries: Mapping[str, str] | None = None, *, query: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Send a map, encrypted, or nothing."""
        body = b"" if entries is None else json.dumps(entries).encode()
        return self._requests.call("POST", f"fedml/{path}", query, body, encrypts=entries is not None)

    def _send(
        self, path: str, body: bytes, query: Mapping[str, str] | None = None, *, content_type: str = "application/json"
    ) -> dict[str, Any]:
        """Send a body as it is."""
        return self._requests.call("POST", f"fedml/{path}", query, body, content_type=content_type)


def query_flag(flag: bool) -> str:
    """Return a flag as a query, and a map, has it."""
    return str(flag).lower()
