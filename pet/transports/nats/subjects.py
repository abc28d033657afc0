"""The names of one federation on a broker: subjects and streams. Nothing else in pet spells them out.

Pure text. Source: docs/spec/federation.md 5.2.
"""

from __future__ import annotations

import re
import secrets
import string
from dataclasses import dataclass
from typing import Final

from pet.errors import ConfigError

_FEDERATION_ID: Final = re.compile(r"[a-z0-9]{16}")
#: A peer's uuid is hex; other words of this form do no harm in a subject either.
_PEER: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
#: Stands in the place of an upload's name where parts of updates of pet/1 are stored.
STORED_UPDATE: Final = "pet1"
_ALPHABET: Final = string.ascii_lowercase + string.digits


def generate_federation_id() -> str:
    """Return 16 random characters a-z and 0-9."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(16))


def require_token(text: str, what: str = "peer") -> str:
    """Return a text that can stand between the dots of a subject.

    Raises:
        ConfigError: it cannot.
    """
    if not _PEER.fullmatch(text):
        raise ConfigError(f"{what}: expected 1 to 64 letters, digits, _ or -, got {text[:70]!r}")
    return text


@dataclass(frozen=True, slots=True)
class Subjects:
    """Every name of one federation.

    Attributes:
        federation_id: 16 characters a-z and 0-9.

    Raises:
        ConfigError: the id has another form.
    """

    federation_id: str

    def __post_init__(self) -> None:
        if not _FEDERATION_ID.fullmatch(self.federation_id):
            raise ConfigError(f"federation id: expected 16 characters a-z and 0-9, got {self.federation_id[:30]!r}")

    @property
    def prefix(self) -> str:
        """What every subject begins with, the dot included."""
        return f"pet.v1.{self.federation_id}."

    @property
    def join(self) -> str:
        """Request, peer to admin: a token, and the peer's keys."""
        return self.prefix + "join"

    def control(self, peer: str) -> str:
        """Request, admin to peer: schedule, contract, new key, removal."""
        return f"{self.prefix}ctl.{require_token(peer)}"

    def open(self, peer: str) -> str:
        """Request, peer to coordinator: may I send this message?"""
        return f"{self.prefix}open.{require_token(peer)}"

    @property
    def open_all(self) -> str:
        """What a coordinator listens on."""
        return self.prefix + "open.*"

    def ask(self, peer: str) -> str:
        """Request, peer to coordinator: an answer that is for one participant only, such as its seed dictionary."""
        return f"{self.prefix}ask.{require_token(peer)}"

    @property
    def ask_all(self) -> str:
        """What a coordinator listens on."""
        return self.prefix + "ask.*"

    def chunk(self, slot: str) -> str:
        """Request: one chunk of an upload. The slot is a secret that `open` gave out."""
        return f"{self.prefix}rx.{require_token(slot, 'slot')}"

    def done(self, slot: str) -> str:
        """Request: all chunks of an upload are sent."""
        return f"{self.prefix}done.{require_token(slot, 'slot')}"

    def open_update(self, peer: str) -> str:
        """Request, peer to coordinator: the sealed part of an update of pet/1."""
        return f"{self.prefix}pet1.open.{require_token(peer)}"

    @property
    def open_update_all(self) -> str:
        """What a coordinator listens on."""
        return self.prefix + "pet1.open.*"

    def leaves(self, peer: str) -> str:
        """Request, peer to coordinator: a leaf of an open update of pet/1."""
        return f"{self.prefix}pet1.leaves.{require_token(peer)}"

    @property
    def leaves_all(self) -> str:
        """What a coordinator listens on."""
        return self.prefix + "pet1.leaves.*"

    def event(self, name: str) -> str:
        """Stored, last value only: round parameters, phases, schedules, and what there is to fetch."""
        return f"{self.prefix}evt.{require_token(name, 'event')}"

    @property
    def events_all(self) -> str:
        """What a peer listens on."""
        return self.prefix + "evt.>"

    def sync(self, peer: str, sequence: int) -> str:
        """Stored: chunks of a peer's statistics, `.index` follows."""
        return f"{self.prefix}sync.{require_token(peer)}.{sequence}"

    def upload(self, peer: str, upload_id: str) -> str:
        """Stored until received: chunks of an upload in mode `stream`, `.index` follows."""
        return f"{self.prefix}up.{require_token(peer)}.{require_token(upload_id, 'upload')}"

    def stored_update(self, peer: str, part: str) -> str:
        """Stored until received: a part of an update of pet/1 in mode `stream`, "open" or "leaves"."""
        return f"{self.prefix}up.{require_token(peer)}.{STORED_UPDATE}.{part}"

    def model(self, name: str) -> str:
        """Stored: chunks of a result for all, `.index` follows."""
        return f"{self.prefix}model.{require_token(name, 'model')}"

    def want(self, peer: str) -> str:
        """Request, peer to peer: send everything again."""
        return f"{self.prefix}want.{require_token(peer)}"

    def explore(self, peer: str) -> str:
        """Request, peer to peer: an exploration of that peer's statistics."""
        return f"{self.prefix}explore.{require_token(peer)}"

    @property
    def upload_stream(self) -> str:
        """The work queue of mode `stream`."""
        return f"PET_{self.federation_id}_UP"

    @property
    def broadcast_stream(self) -> str:
        """Chunks that everybody may fetch."""
        return f"PET_{self.federation_id}_BC"

    @property
    def event_stream(self) -> str:
        """The last value of each event."""
        return f"PET_{self.federation_id}_EV"
