"""The streams of a federation at its broker: what each is like, made where they are missing, and deleted.

Source: docs/spec/federation.md 5.1, facts 7 and 10; 5.2.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pet.errors import MissingError, TransportConfigError, TransportError
from pet.transports.nats.connection import NatsConnection
from pet.transports.nats.storage import ask_storage
from pet.transports.nats.subjects import Subjects

_logger: Final = logging.getLogger(__name__)

#: Room for what changes seldom and is small (spec 5.2).
EVENT_STREAM_BYTES: Final = 2**20
MIN_AGE_SECONDS: Final = 3600
_DUPLICATE_WINDOW_SECONDS: Final = 600
_NANOSECONDS: Final = 10**9


class Streams:
    """The streams of one federation.

    Args:
        connection: to the broker.
        subjects: names of the federation.
        max_age_seconds: how long the broker keeps anything; an hour or more.
    """

    def __init__(self, connection: NatsConnection, subjects: Subjects, max_age_seconds: float) -> None:
        self._connection: Final = connection
        self._subjects: Final = subjects
        self._max_age_seconds: Final = max(MIN_AGE_SECONDS, max_age_seconds)

    async def create(self) -> list[str]:
        """Create the streams that are missing; all of them, or none. For the admin, again after every lost connection.

        A broker counts what a stream may hold against its storage, and refuses to create one that exists when too little is
        left for a second one: hence the look at what is there.

        Returns:
            The names of those that were made.

        Raises:
            TransportConfigError: there are others under these names, or the broker has too little room.
        """
        made: list[str] = []
        try:
            for config in self.configs():
                if not await self._has_stream(config):
                    await self._make(config, made)
        except BaseException:
            await self.delete(made)
            raise
        return made

    async def _make(self, config: Mapping[str, Any], made: list[str]) -> None:
        name = config["name"]
        made.append(name)  # before it is asked for: the answer may be lost
        try:
            record = await ask_storage(self._connection, f"STREAM.CREATE.{name}", config)
        except TransportConfigError:
            made.remove(name)  # refused; a stream of this name is somebody else's
            raise
        self._require_config(config, record)

    async def _has_stream(self, config: Mapping[str, Any]) -> bool:
        try:
            record = await ask_storage(self._connection, f"STREAM.INFO.{config['name']}")
        except MissingError:
            return False
        self._require_config(config, record)
        return True

    def _require_config(self, config: Mapping[str, Any], record: Mapping[str, Any]) -> None:
        """Compare what the broker keeps with what was asked for: old servers ignore what they do not know (fact 10)."""
        made = record.get("config", {})
        if ignored := [key for key, value in config.items() if made.get(key, False) != value]:
            version = self._connection.server_version
            raise TransportConfigError(
                f"{config['name']}: expected a stream with the {', '.join(ignored)} of our settings, the broker, which is "
                f"{version}, has another"
            )

    async def delete(self, names: Iterable[str] | None = None) -> None:
        """Delete streams and all they hold; absent ones do not matter.

        Args:
            names: which ones, as far as the broker can be asked; None means all of the federation, and raises if it cannot.
        """
        for config in self.configs():
            name = config["name"]
            if names is not None and name not in names:
                continue
            try:
                await ask_storage(self._connection, f"STREAM.DELETE.{name}")
            except MissingError:
                continue
            except TransportError as error:
                if names is None:
                    raise
                _logger.warning("%s and what follows may be left at the broker: %s", name, error)
                return

    def configs(self) -> list[dict[str, Any]]:
        """Return what each stream is like, in the words of the broker."""
        settings, prefix = self._connection.settings, self._subjects.prefix
        quarter = settings.stream_max_bytes // 4
        shared = {
            "storage": settings.storage,
            "num_replicas": settings.replicas,
            "max_age": int(self._max_age_seconds * _NANOSECONDS),
            "duplicate_window": _DUPLICATE_WINDOW_SECONDS * _NANOSECONDS,
        }
        reading = {"retention": "limits", "discard": "old", "max_msgs_per_subject": 1, "allow_direct": True}
        return [
            {"name": self._subjects.event_stream, "subjects": [prefix + "evt.>"], "max_bytes": EVENT_STREAM_BYTES}
            | reading
            | shared,
            {
                "name": self._subjects.broadcast_stream,
                "subjects": [prefix + "sync.>", prefix + "model.>"],
                "max_bytes": quarter - EVENT_STREAM_BYTES,
            }
            | reading
            | shared,
            {
                "name": self._subjects.upload_stream,
                "subjects": [prefix + "up.>"],
                "max_bytes": settings.stream_max_bytes - quarter,
                "retention": "workqueue",
                "discard": "new",
            }
            | shared,
        ]
