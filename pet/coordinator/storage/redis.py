"""A storage in Redis: one transaction of the server for each change (redis_changes.py).

What is durable there, the server's own settings say: with `appendonly yes` and `appendfsync always` what is acknowledged
survives a loss of power too, with `everysec` it survives the end of the server's process. This file sees to the rest: a change
happens as a whole, and by one coordinator at a time. The process that opens the storage becomes its owner, unless the owner
before still has a connection; one that has lost it notices at its next change, and makes none.

Keys begin with "pet:"; others in the same database are left alone.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, cast

from pet.buffers import Buffer
from pet.coordinator.storage.base import Blob, Stored, Transaction, is_next, join, matches
from pet.coordinator.storage.redis_changes import Command, RedisChanges
from pet.errors import MissingExtraError, StateError, StorageError
from pet.urls import shown_error, shown_url

with MissingExtraError.naming("redis"):
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

_logger: Final = logging.getLogger(__name__)

OWNER_KEY: Final = b"pet:owner"
STATE_KEY: Final = b"pet:state"
ENTRIES_KEY: Final = b"pet:entries"
NAMES_KEY: Final = b"pet:blobs"
_BLOB_KEY: Final = b"pet:blob:"

_VERSION: Final = b"1"
_CONNECT_SECONDS: Final = 5.0
#: A server that syncs 150 MB to a slow disk takes its time.
_ANSWER_SECONDS: Final = 60.0
#: What the library connects to where a URL leaves it out.
_DEFAULT_HOST: Final = "localhost"
_DEFAULT_PORT: Final = 6379
_BAD_OPTIONS: Final = "expected a URL with options that exist, got others"
#: The settings of a server with which nothing acknowledged is lost.
_DURABLE: Final = {"appendonly": "yes", "appendfsync": "always"}
_HINT: Final = "(--fresh begins anew and forgets what is there)"


class RedisStorage:
    """`Storage` in a Redis server.

    Args:
        url: redis://[user][:password@]host[:port][/database], or rediss:// for TLS.
        is_fresh: forget everything of a coordinator that is there first.
        must_be_durable: refuse a server that can lose what was acknowledged; else one is warned about.

    Raises:
        StateError: the keys hold something that no coordinator has written, or of another version.
        StorageError: the server cannot be reached, is not durable enough, or another coordinator uses it.
    """

    def __init__(self, url: str, *, is_fresh: bool = False, must_be_durable: bool = False) -> None:
        self.description = "Redis"
        self._owner: Final = f"pet-coordinator-{os.urandom(8).hex()}"
        pool = _pool(url, self._owner)
        self.description = _describe(pool)
        self._client: Final = redis.Redis.from_pool(pool)  # which it closes with itself
        try:
            with self._mapped_errors():
                self._connect()
                if (gap := _durability_gap(self._client)) is not None:
                    if must_be_durable:
                        raise StorageError(f"{self.description}: {gap}")
                    _logger.warning("%s: %s", self.description, gap)
                self._take_ownership()
                if is_fresh:
                    names = cast("set[bytes]", self._client.smembers(NAMES_KEY))
                    blobs = [_BLOB_KEY + name for name in names]
                    self._client.delete(STATE_KEY, ENTRIES_KEY, NAMES_KEY, *blobs)
                questions = [b"GET", OWNER_KEY], [b"HMGET", STATE_KEY, b"sequence", b"data"]
                self._changes: Final = RedisChanges(pool, [OWNER_KEY, STATE_KEY], questions)
        except BaseException:
            self._client.close()
            raise

    def load(self) -> Stored | None:
        """Return what is stored."""
        with self._mapped_errors():
            state = cast("dict[bytes, bytes]", self._client.hgetall(STATE_KEY))
            if not state:
                return None
            entries = cast("list[bytes]", self._client.lrange(ENTRIES_KEY, 0, -1))
            names = cast("set[bytes]", self._client.smembers(NAMES_KEY))
        if state.get(b"version") != _VERSION or not {b"sequence", b"data"} <= state.keys():
            raise StateError(f"{self.description}: expected the state of a coordinator of version 1, got another {_HINT}")
        digits = state[b"sequence"]
        if not (digits.isdigit() and len(digits) <= 20 and all(name.isascii() for name in names)):
            raise StateError(f"{self.description}: expected a sequence number and names of blobs, got something else {_HINT}")
        return Stored(
            sequence=int(digits),
            state=state[b"data"],
            entries=entries,
            blob_names=frozenset(name.decode() for name in names),
        )

    def read_blob(self, name: str) -> Buffer:
        """Return the bytes of a blob."""
        with self._mapped_errors():
            data = cast("bytes | None", self._client.get(_BLOB_KEY + name.encode()))
        if data is None:
            raise StateError(f"{self.description}: expected a blob {name!r}, got none {_HINT}")
        return data

    def commit(self, transaction: Transaction) -> None:
        """Make a change durable, as far as the server does."""
        try:
            with self._mapped_errors():
                while self._is_next(transaction):
                    if self._changes.make(self._commands(transaction)):
                        return
        except StateError:
            self._changes.forget()
            raise

    def close(self) -> None:
        """Give the storage back, and close the connection."""
        try:
            with self._mapped_errors():
                if self._client.get(OWNER_KEY) == self._owner.encode():
                    self._client.delete(OWNER_KEY)
        except StorageError:
            pass  # the next owner finds that this one has no connection
        self._changes.close()
        self._client.close()

    def _is_next(self, transaction: Transaction) -> bool:
        """Return whether a change is still to be made, by what is stored and watched; raises as `commit`."""
        owner, (sequence, state) = self._changes.read()
        if owner != self._owner.encode():
            what = "nobody: it has lost its data" if owner is None else "another coordinator"
            raise StateError(f"{self.description}: expected to be owned by this coordinator, got {what}")
        return is_next(transaction, int(sequence or 0), state or b"")

    def _connect(self) -> None:
        try:
            self._client.ping()
            return
        except (TypeError, ValueError):  # an option of the URL's query that the library does not know
            pass
        # Raised outside of the handler, so that no cause is chained that says more.
        raise StorageError(f"{self.description}: {_BAD_OPTIONS}")

    def _take_ownership(self) -> None:
        owner = cast("bytes | None", self._client.get(OWNER_KEY))
        if owner is not None and owner.decode(errors="replace") in self._connected_names():
            raise StorageError(f"{self.description}: expected a database of its own, but another coordinator uses it")
        self._client.set(OWNER_KEY, self._owner)

    def _connected_names(self) -> set[str]:
        """Return the names of all connections; none where that may not be asked."""
        try:
            clients = self._client.client_list()
        except redis.exceptions.NoPermissionError:
            return set()
        return {client.get("name", "") for client in clients}

    def _dropped_names(self, transaction: Transaction) -> list[str]:
        """Return the names of the blobs that a change drops."""
        if not transaction.clears and not any(name.endswith("*") for name in transaction.dropped_blobs):
            return list(transaction.dropped_blobs)
        names = [name.decode() for name in self._changes.ask([b"SMEMBERS", NAMES_KEY])]
        if transaction.clears:
            return names
        return [name for name in names if any(matches(name, pattern) for pattern in transaction.dropped_blobs)]

    def _commands(self, transaction: Transaction) -> list[Command]:
        """Return the commands of a change."""
        commands: list[Command] = []
        if transaction.clears:
            commands.append([b"DEL", ENTRIES_KEY])
        if dropped := [name.encode() for name in self._dropped_names(transaction)]:
            commands.append([b"DEL", *[_BLOB_KEY + name for name in dropped]])
            commands.append([b"SREM", NAMES_KEY, *dropped])
        if transaction.blobs:
            blobs = [(name.encode(), _buffers(blob)) for name, blob in transaction.blobs.items()]
            commands.append([b"MSET", *[part for name, buffers in blobs for part in (_BLOB_KEY + name, buffers)]])
            commands.append([b"SADD", NAMES_KEY, *[name for name, _ in blobs]])
        if transaction.entries:
            commands.append([b"RPUSH", ENTRIES_KEY, *transaction.entries])
        sequence = b"%d" % transaction.sequence
        commands.append([b"HSET", STATE_KEY, b"version", _VERSION, b"sequence", sequence, b"data", transaction.state])
        return commands

    @contextmanager
    def _mapped_errors(self) -> Iterator[None]:
        try:
            yield
        except redis.exceptions.ResponseError as error:
            if str(error).startswith("WRONGTYPE"):
                raise StateError(f"{self.description}: expected keys of a coordinator, got others under their names") from None
            raise StorageError(f"{self.description}: {shown_error(error)}") from None
        except (redis.exceptions.RedisError, OSError) as error:
            if isinstance(error, StorageError):
                raise
            raise StorageError(f"{self.description}: {shown_error(error)}") from None


def check_server(url: str, seconds: float, *, must_be_durable: bool = False) -> None:
    """See that a server answers; nothing is written.

    Args:
        url: as for `RedisStorage`.
        seconds: how long it may take to connect, and to answer.
        must_be_durable: as for `RedisStorage`.

    Raises:
        StorageError: it cannot be reached, does not let us in, or is not durable enough.
    """
    pool = _pool(url, "pet-check", connect_seconds=seconds, answer_seconds=seconds)
    with contextlib.closing(redis.Redis.from_pool(pool)) as client:
        try:
            client.ping()
            fault = _durability_gap(client) if must_be_durable else None
        except (redis.exceptions.RedisError, OSError) as error:
            fault = shown_error(error)
        except (TypeError, ValueError):
            fault = _BAD_OPTIONS
    if fault is not None:
        raise StorageError(f"{_describe(pool)}: {fault}")


def _durability_gap(client: Any) -> str | None:
    """Return what lets a server lose acknowledged messages, or keeps us from knowing, with a remedy; None for nothing."""
    expected = "expected appendonly yes and appendfsync always"
    try:
        found = cast("dict[str, str]", client.config_get("append*"))
    except redis.exceptions.ResponseError:  # forbidden, as to users of most managed servers, or no such command
        return (
            f"{expected}, got a server that does not let us ask (CONFIG): if its operator does not promise both, acknowledged "
            "messages can be lost with the server; allow +config|get"
        )
    got = {name: found.get(name, "nothing") for name in _DURABLE}
    if got == _DURABLE:
        return None
    loss = "of the last second or so with the machine" if got["appendonly"] == "yes" else "with the server's process"
    wrong = [f"{name} {value}" for name, value in _DURABLE.items() if got[name] != value]
    return (
        f"{expected}, got {' and '.join(f'{name} {value}' for name, value in got.items())}: acknowledged messages can be lost "
        f"{loss}; set {' and '.join(wrong)} in redis.conf, or with CONFIG SET and CONFIG REWRITE"
    )


def _buffers(blob: Blob) -> Sequence[Buffer]:
    """Return the bytes of a blob as buffers to be sent one behind the other."""
    return blob if isinstance(blob, Sequence) else [join(blob)]


def _describe(pool: redis.ConnectionPool) -> str:
    """Return where a server is, without credentials."""
    known = pool.connection_kwargs
    if "path" in known:
        return f"Redis at {known['path']}, database {known.get('db', 0)}"
    return f"Redis at {known.get('host', _DEFAULT_HOST)}:{known.get('port', _DEFAULT_PORT)}/{known.get('db', 0)}"


def _pool(
    url: str, owner: str, *, connect_seconds: float = _CONNECT_SECONDS, answer_seconds: float = _ANSWER_SECONDS
) -> redis.ConnectionPool:
    """Return connections to a server, none open yet.

    Raises:
        StorageError: the URL cannot be used. What the library says of it is not shown: it quotes a part of the password.
    """
    try:
        return redis.ConnectionPool.from_url(
            url,
            client_name=owner,
            socket_connect_timeout=connect_seconds,
            socket_timeout=answer_seconds,
            # A change that may have happened must not be made again by somebody who does not look first.
            retry=Retry(NoBackoff(), 0),
        )
    except (ValueError, TypeError, AttributeError, redis.exceptions.RedisError):
        pass
    # Raised outside of the handler, so that no cause is chained that says more.
    raise StorageError(
        f"redis.url: expected redis://[user][:password@]host[:port][/database], with the special characters of a password"
        f" percent-encoded (/ as %2F), got {shown_url(url)}"
    )
