"""The file that holds a signing key; only its owner can read it, and its content is shown nowhere.

One line: `pet-coordinator-key-1` and the seed of an Ed25519 key, 64 hexadecimal digits. The public key of a coordinator is
given to participants; that of a member, a participant or an authority of pet/1 to who writes or checks enrolments.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from pet.crypto import KEY_SEED_BYTES, SigningKeyPair
from pet.errors import ConfigError
from pet.files import read_private, shown_fault, sync_folder, write_new

_LINE: Final = re.compile(rb"pet-coordinator-key-1 ([0-9a-f]{%d})\r?\n?" % (2 * KEY_SEED_BYTES))
_MAX_BYTES: Final = 4096


def create_key_file(path: Path) -> SigningKeyPair:
    """Draw a key and write it to a new file.

    Raises:
        ConfigError: the file exists, or cannot be written.
    """
    key = SigningKeyPair.generate()
    seed = key.secret_key[:KEY_SEED_BYTES]
    try:
        write_new(path, [f"pet-coordinator-key-1 {seed.hex()}\n".encode()])
        sync_folder(path.parent)
    except OSError as error:
        raise ConfigError(shown_fault(error, path, "a new file for the key")) from None
    return key


def read_key_file(path: Path) -> SigningKeyPair:
    """Read what `create_key_file` wrote.

    Raises:
        ConfigError: the file cannot be read, others can read it too, or it holds something else, which is not shown.
    """
    try:
        found = _LINE.fullmatch(read_private(path, _MAX_BYTES))
    except OSError as error:
        raise ConfigError(shown_fault(error, path, "a key file")) from None
    if found is None:
        raise ConfigError(f"{path}: expected a key file as 'pet key new' writes it, got something else")
    return SigningKeyPair.from_seed(bytes.fromhex(found[1].decode()))
