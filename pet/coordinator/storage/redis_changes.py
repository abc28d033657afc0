"""The connection on which a storage in Redis is changed: each change is one transaction of the server, and one round trip.

A transaction may only be made if what it rests on is still there. Redis has WATCH for that: a transaction fails if a watched
key was changed since. The keys are watched, and read, in the same round trip as the change before, behind it: so the next
change can be sent at once, and fails if somebody was quicker. Then, and on a new connection, they are read anew.

What the keys and commands mean is not known here. For one thread at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias, cast

from pet.buffers import Buffer
from pet.errors import MissingExtraError

with MissingExtraError.naming("redis"):
    import redis

#: A part of a command: bytes, or buffers that are sent one behind the other.
Part: TypeAlias = Buffer | Sequence[Buffer]
Command: TypeAlias = Sequence[Part]

#: Transactions up to this size are put together in memory: one call of the system is less work than a few for each command.
_JOINED_BYTES: Final = 1 << 20


class RedisChanges:
    """Makes changes that rest on watched keys. Every method raises what redis-py does; the next call connects anew.

    Args:
        pool: where the connection comes from.
        watched: the keys.
        questions: commands that read them.
    """

    def __init__(self, pool: redis.ConnectionPool, watched: Sequence[bytes], questions: Sequence[Command]) -> None:
        self._client: Final = redis.Redis(connection_pool=pool, single_connection_client=True)
        self._connection: Final = cast("Any", self._client.connection)
        self._watching: Final[list[Command]] = [[b"WATCH", *watched], *questions]
        #: What the questions had for answers when watching began; None while it has not.
        self._answers: list[Any] | None = None
        self._connection.register_connect_callback(self._note_connection)

    def read(self) -> list[Any]:
        """Return the answers to the questions; what they rest on is watched from then on."""
        if self._answers is not None and self._is_lost():
            self.forget()
        if self._answers is None:
            self._answers = self._ask(self._watching)[1:]
        return self._answers

    def ask(self, command: Command) -> Any:
        """Return the answer to one more question."""
        return self._ask([command])[0]

    def make(self, commands: Sequence[Command]) -> bool:
        """Make a change, all of it or nothing; returns False, and does nothing, if a watched key was changed since `read`."""
        answers = self._ask([[b"MULTI"], *commands, [b"EXEC"], *self._watching])
        self._answers = answers[len(commands) + 3 :]
        results = answers[len(commands) + 1]
        if results is None:
            return False
        for result in results:
            if isinstance(result, redis.exceptions.ResponseError):
                raise result
        return True

    def forget(self) -> None:
        """Close the connection, so that the next call reads anew."""
        self._answers = None
        self._connection.disconnect()

    def close(self) -> None:
        """Close the connection."""
        self.forget()
        self._client.close()

    def _ask(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands together, and return the answer to each; after an error nothing is watched."""
        try:
            self._connection.send_packed_command(_pack(commands))
            return [self._connection.read_response() for _ in commands]
        except BaseException:
            self.forget()  # with what else would be answered
            raise

    def _is_lost(self) -> bool:
        try:
            return bool(self._connection.can_read())  # nothing is sent to us unasked but the end
        except (redis.exceptions.RedisError, OSError):
            return True

    def _note_connection(self, _: object) -> None:
        """Refuse a connection that the library makes in place of the one that watches."""
        if self._answers is not None:
            raise redis.exceptions.ConnectionError("the connection was lost")


def _pack(commands: Sequence[Command]) -> list[Buffer]:
    """Write commands as they are sent; large buffers are not copied."""
    packed: list[Buffer] = []
    size = 0
    for command in commands:
        packed.append(b"*%d\r\n" % len(command))
        for part in command:
            buffers = [part] if isinstance(part, (bytes, bytearray, memoryview)) else part
            length = sum(map(len, buffers))
            packed += [b"$%d\r\n" % length, *buffers, b"\r\n"]
            size += length
    return [b"".join(packed)] if size <= _JOINED_BYTES else packed
