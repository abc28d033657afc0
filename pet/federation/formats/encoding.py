"""Base64 in the two alphabets, strict, and JSON in its canonical form. Knows no record and no request."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from pet.errors import FederationValueError


def encode_base64url(data: bytes) -> str:
    """Return unpadded base64url."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode_base64url(text: str) -> bytes:
    """Decode unpadded base64url.

    Raises:
        FederationValueError: another alphabet, padding, or bits beyond the end that are not zero.
    """
    return _decode(text, "-_", padding=-len(text) % 4, encode=encode_base64url)


def encode_base64(data: bytes) -> str:
    """Return standard, padded base64."""
    return base64.b64encode(data).decode()


def decode_base64(text: str) -> bytes:
    """Decode standard, padded base64.

    Raises:
        FederationValueError: not exactly what `encode_base64` gives.
    """
    return _decode(text, "+/", padding=0, encode=encode_base64)


def _decode(text: str, alphabet: str, *, padding: int, encode: Any) -> bytes:
    try:
        data = base64.b64decode(text + "=" * padding, altchars=alphabet.encode(), validate=True)
    except (binascii.Error, ValueError):
        data = None
    # Decoding and encoding again is what makes it canonical: one text for one value.
    if data is None or encode(data) != text:
        raise FederationValueError(f"expected canonical base64, got {len(text)} characters that are not")
    return data


def canonical_json(value: Any) -> str:
    """Return JSON with sorted keys, no spaces, ASCII only."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def parse_json_object(data: bytes | str) -> dict[str, Any] | None:
    """Return a JSON object, or None for anything else; repeated keys are not accepted."""
    try:
        value = json.loads(data, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key twice")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")
