"""The one name for bytes that are read where they are: what every codec, transport and storage takes and hands on."""

from __future__ import annotations

from typing import TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview
