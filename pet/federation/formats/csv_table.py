"""CSV files as they are handed over: where the text is, and what the file does not say of itself.

Bytes become lines of text here, in bounded memory. What stands in the lines is the business of csv_reader.py.

Source: docs/spec/federation.md 9.1.
"""

from __future__ import annotations

import codecs
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from pet.errors import FederationValueError

SEPARATORS: Final = (",", ";", "\t")
#: The longest line, in bytes as they are in the file; a table with 4096 features needs 100 kB.
MAX_LINE_BYTES: Final = 4 << 20
_CHUNK_BYTES: Final = 64 << 10
#: Encodings of text files. Others that Python knows transform bytes, or take quadratic time.
_ENCODINGS: Final = re.compile(
    r"(utf-(8|16|32)(-sig|-le|-be)?|ascii|iso8859-[0-9]+|cp[0-9]+|mac-[a-z]+|koi8-[rtu]|gb[0-9]+|gbk|big5(hkscs)?"
    r"|shift_jis\w*|euc_\w+)"
)
#: Name of the handler that puts a mark where bytes are no text, so that they are found again with their line and column.
_MARKING: Final = "pet-mark"
_MARK: Final = "\udcff"


@dataclass(frozen=True, slots=True)
class CsvTable:
    """A CSV file and what it does not say of itself.

    Attributes:
        source: a path, bytes, or an open file, binary or text.
        encoding: of a path, of bytes and of a binary file; a byte order mark at the beginning is not part of the text.
        separator: between fields: ",", ";" or a tab. None finds it in the heading.
        decimal: "." or ",".

    Raises:
        FederationValueError: an encoding, separator or decimal mark that is not supported.
    """

    source: str | Path | bytes | IO[Any] | io.IOBase
    encoding: str = "utf-8"
    separator: str | None = None
    decimal: str = "."

    def __post_init__(self) -> None:
        try:
            name = codecs.lookup(self.encoding).name
        except (LookupError, ValueError):
            name = ""
        if not _ENCODINGS.fullmatch(name):
            raise FederationValueError(f"encoding: expected one of text files, for example utf-8, got {self.encoding!r}")
        if self.separator not in (None, *SEPARATORS):
            raise FederationValueError(f"separator: expected ',', ';' or a tab, got {self.separator!r}")
        if self.decimal not in (".", ","):
            raise FederationValueError(f"decimal: expected '.' or ',', got {self.decimal!r}")
        if self.decimal == self.separator:
            raise FederationValueError("decimal: expected another character than the separator, got ',' for both")


def open_text(table: CsvTable) -> io.TextIOWrapper:
    """Return the text of a table, its line ends as they are; bytes that are no text become halves of surrogate pairs.

    Raises:
        OSError: the file cannot be opened.
    """
    encoding = "utf-8" if isinstance(table.source, io.TextIOBase) else table.encoding
    if codecs.lookup(encoding).name == "utf-8":
        encoding = "utf-8-sig"
    codecs.register_error(_MARKING, _mark)
    lines = io.BufferedReader(_bytes_of(table.source), _CHUNK_BYTES)
    # newline="" leaves line ends as they are, and takes nothing else for one: no U+2028, no form feed.
    return io.TextIOWrapper(lines, encoding, _MARKING, newline="")


def _bytes_of(source: Any) -> _BoundedLines:
    if isinstance(source, bytes):
        return _BoundedLines(io.BytesIO(source), is_owned=True)
    if isinstance(source, str | Path):
        return _BoundedLines(Path(source).open("rb"), is_owned=True)
    return _BoundedLines(source, is_owned=False)


def _mark(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError), "only decoders use it"
    return _MARK, error.end


class _BoundedLines(io.RawIOBase):
    """The bytes of a file, binary or text; refuses lines beyond `MAX_LINE_BYTES`, however large the file is."""

    def __init__(self, file: IO[Any], *, is_owned: bool) -> None:
        self._file: Final = file
        self._is_owned: Final = is_owned
        self._rest = b""
        self._line = 1
        self._line_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            found = self._file.read(_CHUNK_BYTES)
            # Half a surrogate pair is no text; as bytes the decoder finds it.
            self._rest = found.encode("utf-8", "surrogatepass") if isinstance(found, str) else found
        part, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        self._count(part)
        buffer[: len(part)] = part
        return len(part)

    def _count(self, part: bytes) -> None:
        end = max(part.rfind(b"\n"), part.rfind(b"\r"))
        self._line_bytes = self._line_bytes + len(part) if end < 0 else len(part) - end
        self._line += part.count(b"\n") or part.count(b"\r")
        if self._line_bytes > MAX_LINE_BYTES:
            raise FederationValueError(f"line {self._line}: expected at most {MAX_LINE_BYTES} bytes, got a longer line")

    def close(self) -> None:
        if self._is_owned and not self.closed:
            self._file.close()
        super().close()
