"""Record what happens to a coordinator, and let it happen again.

A coordinator does nothing of its own accord: with the same settings, the same random bytes and the same calls it does the same.
A recording is those three. It helps to find out what went wrong in a round, and it holds that promise to account in tests.

A recording contains the random bytes that the secret keys of its rounds grew from: it opens every message in it.

This file does no I/O; how a recording is stored is the caller's business.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

from pet.errors import LocalProtocolError, RemoteProtocolError
from pet.protocol.coordinator import Coordinator
from pet.protocol.events import Event
from pet.protocol.round_settings import RoundSettings
from pet.secret import hidden


@dataclass(frozen=True, slots=True)
class Step:
    """One call.

    Attributes:
        now_seconds: when, on the owner's clock.
        body: the sealed message that came; None if only time passed.
    """

    now_seconds: float
    body: bytes | None = field(default=None, repr=False)


@dataclass(slots=True, kw_only=True)
class Recording:
    """Everything that decided what a coordinator did.

    Attributes:
        settings: of the coordinator.
        started_seconds: time at its construction.
        round_id: as given to it.
        seed: as given to it.
        entropy: the random bytes it drew, in order; secret.
        steps: the calls, in order.
    """

    settings: RoundSettings
    started_seconds: float
    round_id: int = 0
    seed: bytes = bytes(32)
    entropy: list[bytes] = hidden(default_factory=list)  # noqa: RUF009  a field
    steps: list[Step] = field(default_factory=list)


class Recorder:
    """Drives a coordinator and writes down what it does to it.

    Args:
        recording: where to write, with the settings to use; without entropy and steps.
        entropy: as for the coordinator.
    """

    def __init__(self, recording: Recording, entropy: Callable[[int], bytes]) -> None:
        self.recording = recording
        self._entropy = entropy
        self.coordinator = _new_coordinator(recording, self._draw)

    def apply(self, step: Step) -> list[Event]:
        """Do one step and return what came of it, oldest first."""
        self.recording.steps.append(step)
        return apply_step(self.coordinator, step)

    def _draw(self, size: int) -> bytes:
        self.recording.entropy.append(self._entropy(size))
        return self.recording.entropy[-1]


def apply_step(coordinator: Coordinator, step: Step) -> list[Event]:
    """Do one step to a coordinator, a body being opened, and refused where it must be, as a service would do it.

    Returns:
        All events that nobody took yet, oldest first.
    """
    coordinator.advance_time(step.now_seconds)
    keys = coordinator.encryption_keys
    assert keys is not None, "time has passed, so a round has begun"
    if step.body is not None:
        try:
            message = coordinator.profile.open_message(step.body, keys, coordinator.accepted_tag)
        except RemoteProtocolError as error:
            coordinator.refuse(error.reason)
        else:
            with contextlib.suppress(RemoteProtocolError):  # already counted
                coordinator.receive(message, step.now_seconds)
    return list(iter(coordinator.next_event, None))


def replay(recording: Recording) -> list[Event]:
    """Let a recording happen again.

    Returns:
        All events, oldest first: those that the recorded coordinator gave.

    Raises:
        LocalProtocolError: the recording holds less entropy than its steps need; it was cut, or is not one of this version.
    """
    drawn = iter(recording.entropy)

    def draw(size: int) -> bytes:
        entropy = next(drawn, b"")
        if len(entropy) != size:
            raise LocalProtocolError(f"recording: expected {size} bytes of entropy next, got {len(entropy)}")
        return entropy

    coordinator = _new_coordinator(recording, draw)
    return [event for step in recording.steps for event in apply_step(coordinator, step)]


def _new_coordinator(recording: Recording, entropy: Callable[[int], bytes]) -> Coordinator:
    return Coordinator(
        recording.settings,
        now_seconds=recording.started_seconds,
        entropy=entropy,
        round_id=recording.round_id,
        seed=recording.seed,
    )
