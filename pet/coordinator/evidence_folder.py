"""Evidence of rounds of pet/1 in files: one for each round in which somebody sent something wrong, or members signed.

    magic (15) || header length u32 || header (JSON) || the bytes that it names, one behind the other || CRC-32 of all before

All of it was public, and anybody can judge it with nothing else (docs/spec/profile.md 10.4, 13, K6): `read_evidence` reads it.
"""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pet.buffers import Buffer
from pet.errors import StateError, StorageError
from pet.files import make_private_folder, remove_unfinished, replace_file, shown_fault
from pet.protocol.pet1_evidence import Evidence, WrongAnswer

_logger: Final = logging.getLogger(__name__)

_MAGIC: Final = b"pet evidence 1\n"
_LENGTH_BYTES: Final = 4
_CHECKSUM_BYTES: Final = 4
_SUFFIX: Final = ".evidence"
#: What there is one of.
_DOCUMENTS: Final = ("record", "enrolment", "committee", "certificate")


class FolderEvidenceStore:
    """`EvidenceStore` in a folder.

    Args:
        folder: made if it does not exist; only its owner can read it.

    Raises:
        StorageError: the folder cannot be used.
        StateError: a file in it is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.description: Final = str(folder)
        self._folder: Final = folder
        try:
            make_private_folder(folder)
            remove_unfinished(folder)
            #: By round, the members with a wrong answer: asked for whenever somebody looks at the status.
            self._wrong: Final = {int(path.stem): _wrong_members(path) for path in folder.glob(f"*{_SUFFIX}")}
        except OSError as error:
            raise StorageError(shown_fault(error, folder, "a folder to keep evidence in")) from None

    def keep(self, evidence: Evidence) -> None:
        """Keep evidence in place of what there was of its round; it is durable when this returns.

        Raises:
            StorageError: it cannot be written.
        """
        path = self._path_of(evidence.round_id)
        try:
            replace_file(path, _encode(evidence))
        except OSError as error:
            raise StorageError(shown_fault(error, path, "to keep evidence")) from None
        self._wrong[evidence.round_id] = frozenset(answer.member for answer in evidence.wrong_answers)

    def forget(self, before: int) -> None:
        """Forget rounds with lower numbers; a file that cannot be removed is tried again with the next round."""
        for number in [number for number in self._wrong if number < before]:
            path = self._path_of(number)
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                _logger.warning("%s", shown_fault(error, path, "to remove old evidence"))
            else:
                del self._wrong[number]

    def wrong_members(self) -> frozenset[bytes]:
        """Return the keys of members of whom a wrong answer is kept."""
        return frozenset[bytes]().union(*self._wrong.values())

    def _path_of(self, number: int) -> Path:
        return self._folder / f"{number}{_SUFFIX}"


def read_evidence(path: Path) -> Evidence:
    """Read the evidence of a round.

    Raises:
        StateError: it is damaged, or something else.
        OSError: it cannot be read.
    """
    data = path.read_bytes()
    if zlib.crc32(data[:-_CHECKSUM_BYTES]).to_bytes(_CHECKSUM_BYTES, "little") != data[-_CHECKSUM_BYTES:]:
        raise StateError(f"{path}: expected evidence with its checksum, got another one: it is damaged")
    with StateError.reading(str(path)):
        header, place = _read_header(data)

        def take(size: int) -> bytes:
            nonlocal place
            place += size
            return data[place - size : place]

        documents = {name: take(header["sizes"][name]) for name in _DOCUMENTS}
        excluded = tuple(take(size) for size in header["excluded"])
        wrong = tuple(
            WrongAnswer(slot=entry["slot"], member=bytes.fromhex(entry["member"]), message=take(entry["size"]))
            for entry in header["wrong"]
        )
        return Evidence(round_id=header["round"], excluded_headers=excluded, wrong_answers=wrong, **documents)


def _encode(evidence: Evidence) -> Iterator[Buffer]:
    documents = [getattr(evidence, name) for name in _DOCUMENTS]
    header = {
        "round": evidence.round_id,
        "sizes": dict(zip(_DOCUMENTS, map(len, documents), strict=True)),
        "excluded": [len(data) for data in evidence.excluded_headers],
        "wrong": [
            {"slot": answer.slot, "member": answer.member.hex(), "size": len(answer.message)}
            for answer in evidence.wrong_answers
        ],
    }
    text = json.dumps(header).encode()
    checksum = 0
    parts = [*documents, *evidence.excluded_headers, *(answer.message for answer in evidence.wrong_answers)]
    for part in (_MAGIC + len(text).to_bytes(_LENGTH_BYTES, "little") + text, *parts):
        checksum = zlib.crc32(part, checksum)
        yield part
    yield checksum.to_bytes(_CHECKSUM_BYTES, "little")


def _read_header(data: bytes) -> tuple[dict[str, Any], int]:
    """Return the header, and where what it names begins."""
    start = len(_MAGIC) + _LENGTH_BYTES
    if not data.startswith(_MAGIC):
        raise StateError("expected evidence of this version, got something else")
    end = start + int.from_bytes(data[len(_MAGIC) : start], "little")
    header: dict[str, Any] = json.loads(data[start:end])
    return header, end


def _wrong_members(path: Path) -> frozenset[bytes]:
    """Read no more of a file than its header: answers are as large as models."""
    with path.open("rb") as file:
        head = file.read(len(_MAGIC) + _LENGTH_BYTES)
        data = head + file.read(min(int.from_bytes(head[len(_MAGIC) :], "little"), path.stat().st_size))
    with StateError.reading(str(path)):
        return frozenset(bytes.fromhex(entry["member"]) for entry in _read_header(data)[0]["wrong"])
