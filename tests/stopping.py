"""Participants of every kind, and how each is stopped in the middle of something; what must be over, and closed, afterwards.

A participant is given the way to a coordinator, and `caught`, which waits until it is in the middle; its argument returns the
participant's last error.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pet.participant import AsyncParticipant, Participant, TickParticipant, spawn_participant
from pet.participant.test_drive import DummyFleet
from pet.transports.base import AsyncTransport, Transport

#: A second, and more for a machine that is busy. What is not ended takes 15 s to connect, and 60 to answer.
SOON = 12.0
SYN_SENT = "02"

Caught = Callable[[Callable[[], object]], object]


class Zeros(Participant):
    """Trains models of any round."""

    def train_round(self, _training_input):
        return np.zeros(self.length(), np.float32)

    def __init__(self, length: Callable[[], int]) -> None:
        self.length = length


def stop_thread(way: str | Transport, caught: Caught) -> bytes:
    """Returns the state."""
    lengths: list[Callable[[], int]] = []
    thread = spawn_participant(way, Zeros, (lambda: lengths[0](),))
    lengths.append(lambda: thread.local_model_config.length)
    caught(lambda: thread.last_error)
    started = time.monotonic()
    state = thread.stop()
    _close(way)
    thread.join(60)
    assert time.monotonic() - started < SOON
    assert not thread.is_alive()
    assert thread.error is None
    assert thread.stop() == state
    return state


async def stop_task(way: str | AsyncTransport, caught: Caught) -> bytes:
    """Returns the state."""
    participant = AsyncParticipant(way)
    participant.start()
    catching = asyncio.create_task(asyncio.to_thread(caught, lambda: participant.last_error))
    while not catching.done():
        if participant.is_model_wanted:
            participant.set_local_model(np.zeros(participant.local_model_config.length, np.float32))
        await asyncio.sleep(0.01)
    await catching
    started = time.monotonic()
    state = await participant.stop()
    assert time.monotonic() - started < SOON
    assert await participant.stop() == state
    return state


def stop_ticks(way: str | Transport, caught: Caught) -> bytes:
    """Returns the state."""
    participant = TickParticipant(way)
    is_over = threading.Event()

    def tick_on() -> None:
        while not (participant.is_given_up or is_over.is_set()):
            participant.tick()
            if participant.should_set_model:
                participant.set_model(np.zeros(participant.local_model_config.length, np.float32))
            is_over.wait(0.01)

    thread = threading.Thread(target=tick_on, name="pet-ticks")
    thread.start()
    caught(lambda: participant.last_error)
    started = time.monotonic()
    is_over.set()
    participant.give_up()
    state = participant.save()
    _close(way)
    thread.join(60)
    participant.close()
    assert time.monotonic() - started < SOON
    assert not thread.is_alive()
    return state


def stop_fleet(transport: Transport, caught: Caught) -> None:
    fleet = DummyFleet(transport, 2, period_seconds=0.05)
    thread = threading.Thread(target=fleet.run, name="pet-fleet")
    thread.start()
    caught(lambda: fleet._progress.last_error)
    started = time.monotonic()
    fleet.stop()
    thread.join(60)
    transport.close()
    assert time.monotonic() - started < SOON
    assert not thread.is_alive()


def _close(way: str | Transport) -> None:
    if not isinstance(way, str):
        way.close()


def connections_to(port: int, state: str = "", process: int | str = "self") -> set[str]:
    """Return the sockets of a process that are connected, or connect, to a port of this machine."""
    own = set()
    for descriptor in Path(f"/proc/{process}/fd").iterdir():
        try:
            own.add(str(descriptor.readlink()))
        except OSError:
            continue  # closed meanwhile, as the one that lists the folder
    found = set()
    for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        is_wanted = int(fields[2].rpartition(":")[2], 16) == port and fields[3].startswith(state)
        if is_wanted and (name := f"socket:[{fields[9]}]") in own:
            found.add(name)
    return found


@contextlib.contextmanager
def address_that_swallows() -> Iterator[int]:
    """Yields a port at which nobody answers: its queue of new connections is full, and the system drops what comes next."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            connection = stack.enter_context(socket.socket())
            connection.setblocking(False)
            connection.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@contextlib.contextmanager
def hanging_name(monkeypatch: pytest.MonkeyPatch, name: str) -> Iterator[threading.Event]:
    """Let the system hang when it looks up a name; yields what is set when it is asked for it.

    The thread that asks cannot be ended, but nobody must wait for it.
    """
    asked, ends, look_up = threading.Event(), threading.Event(), socket.getaddrinfo

    def hang(host: str, *arguments: Any, **options: Any) -> list[Any]:
        if host == name and not options.get("flags"):
            asked.set()
            assert ends.wait(120)
        return look_up(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        yield asked
        assert "pet-daemon" in threads_of_pet()
    finally:
        ends.set()
    wait_for(lambda: threads_of_pet() == [])


def threads_of_pet() -> list[str]:
    """Return the names of pet's threads, but those of the kernels, which stay."""
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith("pet-") and not name.startswith("pet-kernel")]


def wait_for(condition: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found
