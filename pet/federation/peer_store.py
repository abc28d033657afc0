"""The interface between a running peer and what keeps its records, its logs, and the tokens that its admin issued.

How they are kept is not known here (pet/federation/server/store.py), nor what a blob means.
"""

from __future__ import annotations

from typing import Final, Protocol

from pet.federation.formats.learning_records import Change, DoneRequest
from pet.federation.formats.replay_guard import ReplayGuard
from pet.federation.records import FederationRecord, LogKind, PeerIdentity

#: How the names of blobs begin that say what of a peer's rows left it. They outlast its membership: a peer that comes back to
#: the same federation must not show what changed meanwhile.
SHARED_BLOBS: Final = "shared_"


class PeerStore(Protocol):
    """Where one peer keeps what must survive a restart. Quick, synchronous, thread-safe; each call is one transaction."""

    def save_record(self, record: FederationRecord) -> None:
        """Replace the record of this peer."""
        ...

    def save_state(self, name: str, state: bytes | None) -> None:
        """Replace one blob of this peer (statistics, counters, last aggregate); None removes it."""
        ...

    def load_state(self, name: str) -> bytes | None:
        """Return a blob as it was saved last."""
        ...

    def save_change(self, name: str, state: bytes, done: DoneRequest, *, is_empty: bool) -> None:
        """Replace one blob and note the request that changed it, with the table it learned or forgot.

        Args:
            name: of the blob.
            state: the blob.
            done: the request. Beyond `MAX_REQUESTS` the oldest one is dropped.
            is_empty: whether no rows are left, so that no table counts as learned.
        """
        ...

    def done_request(self, request: str) -> DoneRequest | None:
        """Return a request that was carried out, if it is still remembered."""
        ...

    def last_change(self, digest: bytes) -> Change | None:
        """Return what the newest remembered request with these rows did."""
        ...

    def times_learned(self, digest: bytes) -> int:
        """Return how often a table was learned and not forgotten."""
        ...

    def learned_tables(self) -> int:
        """Return how many different tables were learned and not forgotten."""
        ...

    def replay_guard(self, max_ids: int) -> ReplayGuard:
        """Return what remembers the messages that were taken, also over a restart."""
        ...

    def append_log(self, kind: LogKind, line: str) -> None:
        """Add a line; the oldest beyond 1000 are dropped. The line must hold no secret and no row."""
        ...

    def log_lines(self, kind: LogKind) -> list[str]:
        """Return a log, newest last."""
        ...

    def clear_log(self, kind: LogKind) -> None:
        """Empty a log."""
        ...

    def require_token(self, token: str) -> None:
        """Check that a token can still make somebody a member; nothing changes.

        Raises:
            TokenRefusedError: it cannot; also if it was used, by this peer or another.
        """
        ...

    def redeem_token(self, token: str, joined: PeerIdentity, record: FederationRecord) -> None:
        """Use up a join token and save the admin's record with the new peer in it, in one step. Only the admin calls it.

        The same token once more from the very same identity changes nothing and is no error: an answer may get lost.

        Raises:
            TokenRefusedError: the token is unknown, used or expired; `reason` says which, the text does not. Nothing changed.
        """
        ...

    def revoke_tokens(self) -> None:
        """Make every token that was issued and not used worthless: a new federation key is there."""
        ...
