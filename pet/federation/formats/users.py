"""The users of a federation server and their secret keys, from a file or the environment.

The file is JSON, `{"users": {"alice": "<base64 of 16 bytes>"}}`, readable by its owner only, and read again when it changes;
the environment's `PET_FEDERATION_USERS` is `alice=<base64>,bob=<base64>` and wins. Keys are made here and shown nowhere.

Source: docs/spec/federation.md 2.3.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pet.errors import FederationValueError, SettingsError
from pet.federation.formats.compat import SECRET_KEY_BYTES
from pet.federation.formats.encoding import canonical_json, decode_base64, encode_base64, parse_json_object
from pet.files import FileLock, read_private, shown_fault, write_private
from pet.secret import Secret

_logger: Final = logging.getLogger(__name__)
USERS_VARIABLE: Final = "PET_FEDERATION_USERS"
#: What may stand in a path and in an Authorization header without being encoded.
NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_MAX_FILE_BYTES: Final = 1 << 20


class UserDirectory:
    """Who may call, and with which key. Thread-safe."""

    def __init__(self, path: Path | None, environ: Mapping[str, str] | None = None) -> None:
        """Read file and environment.

        Args:
            path: the users' file; it may be absent as long as it is.
            environ: of the process, if not given.

        Raises:
            SettingsError: one of them breaks a rule; no key is shown.
        """
        self._path: Final = path
        self._fixed: Final = _from_text((os.environ if environ is None else environ).get(USERS_VARIABLE, ""))
        self._lock: Final = threading.Lock()
        self._stamp: tuple[int, int, int] | None = None
        self._users: dict[str, Secret] = {}
        self._refresh()

    def secret_key(self, customer_id: str) -> Secret | None:
        """Return a user's key, base64 text; None for somebody unknown."""
        self._refresh()
        return self._fixed.get(customer_id) or self._users.get(customer_id)

    def names(self) -> list[str]:
        """Return all users."""
        self._refresh()
        return sorted({*self._fixed, *self._users})

    def _refresh(self) -> None:
        if self._path is None:
            return
        with self._lock:
            try:
                found = self._path.stat()
            except FileNotFoundError:
                self._users, self._stamp = {}, None
                return
            stamp = found.st_mtime_ns, found.st_ctime_ns, found.st_ino
            if stamp == self._stamp:
                return
            is_first, self._stamp = self._stamp is None, stamp
            try:
                self._users = read_users(self._path)
            except SettingsError as error:
                self._users = {}
                if is_first:
                    raise
                # While it serves: a user who was to lose access must not keep it because of a slip in the file.
                _logger.error("nobody of the users' file can call: %s", error)


def read_users(path: Path) -> dict[str, Secret]:
    """Read a users' file; an absent one has no users.

    Raises:
        SettingsError: others than its owner can read it, it cannot be read, or is malformed.
    """
    try:
        data = read_private(path, _MAX_FILE_BYTES)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SettingsError(shown_fault(error, path, "a users' file")) from None
    users = (parse_json_object(data) or {}).get("users")
    if not isinstance(users, dict):
        raise SettingsError(f'{path}: expected {{"users": {{name: key}}}}, got something else')
    return {name: _checked_key(name, key, str(path)) for name, key in users.items()}


def add_user(path: Path, name: str) -> Secret:
    """Add a user to a file, which is made if need be, and return the new key. The file is replaced in one step.

    Raises:
        SettingsError: the name cannot be used or is taken, or the file is malformed.
    """
    with FileLock(path.with_name(f"{path.name}.lock"), waits=True):  # two that add at the same time keep both users
        users = read_users(path)
        if name in users:
            raise SettingsError(f"{path}: expected a new name, got {name}, which is there already")
        key = Secret(encode_base64(secrets.token_bytes(SECRET_KEY_BYTES)))
        users[name] = _checked_key(name, key.reveal(), str(path))
        write_private(path, canonical_json({"users": {name: users[name].reveal() for name in sorted(users)}}) + "\n")
    return key


def read_key_file(path: Path) -> tuple[str, Secret]:
    """Read what `write_key_file` wrote: a user's name and key.

    Raises:
        SettingsError: it is something else, or others can read it.
    """
    users = read_users(path)
    if len(users) != 1:
        raise SettingsError(f"{path}: expected the key of one user, got {len(users)}")
    return next(iter(users.items()))


def write_key_file(path: Path, name: str, key: Secret) -> None:
    """Write a user's name and key for the user, readable by the owner only."""
    write_private(path, json.dumps({"users": {name: key.reveal()}}) + "\n")


def _from_text(text: str) -> dict[str, Secret]:
    pairs = (pair.strip().partition("=") for pair in text.split(",") if pair.strip())
    return {name: _checked_key(name, key, USERS_VARIABLE) for name, _, key in pairs}


def _checked_key(name: str, key: object, origin: str) -> Secret:
    if not NAME.fullmatch(name):  # not shown: it may be a key without the name in front
        raise SettingsError(f"{origin}: expected names of 1 to 64 letters, digits, '_', '.', '-', got another")
    try:
        size = len(decode_base64(key)) if isinstance(key, str) else 0
    except FederationValueError:
        size = 0
    if size != SECRET_KEY_BYTES:
        raise SettingsError(f"{origin}: expected a key of {SECRET_KEY_BYTES} bytes in base64 for each user, got something else")
    assert isinstance(key, str)
    return Secret(key)
