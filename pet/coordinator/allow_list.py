"""Read the file that says who may take part: one public key on each line.

Knows the form of the file only; how others are refused is in pet/protocol/strategies.py.
"""

from __future__ import annotations

from pathlib import Path

from pet.crypto import PUBLIC_KEY_BYTES, decode_public_key
from pet.errors import ConfigError
from pet.protocol.strategies import ParticipantAllowList


def read_allow_list(path: Path) -> ParticipantAllowList:
    """Read public keys of 32 bytes, in hexadecimal or base64, one a line; what follows a `#` is a comment.

    Raises:
        ConfigError: the file cannot be read, a line is no key, or there is none.
    """
    try:
        lines = path.read_text("ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"service.allowed_participants: expected a file of public keys, got {path}: {error}") from None
    keys = set()
    for number, line in enumerate(lines, start=1):
        if text := line.partition("#")[0].strip():
            keys.add(_decode(text, f"{path}, line {number}"))
    if not keys:
        raise ConfigError(f"service.allowed_participants: expected at least one public key in {path}, got none")
    return ParticipantAllowList(frozenset(keys))


def _decode(text: str, place: str) -> bytes:
    key = decode_public_key(text)
    if key is None:
        raise ConfigError(
            f"{place}: expected a public key of {PUBLIC_KEY_BYTES} bytes in hexadecimal or base64, got {text[:80]!r}"
        )
    return key
