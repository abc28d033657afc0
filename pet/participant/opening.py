"""How both kinds of running participants begin: new, from a state, or from the file that holds one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pet.crypto import SigningKeyPair
from pet.masking import Scalar
from pet.participant.state_file import StateFile
from pet.participant.ticks import AsyncTickParticipant, TickParticipant

_Ticks = TypeVar("_Ticks", TickParticipant, AsyncTickParticipant)


def open_participant(
    kind: type[_Ticks],
    coordinator: Any,
    *,
    state: bytes | None,
    state_file: Path | str | None,
    signing_key: SigningKeyPair | None,
    scalar: Scalar,
    max_message_size: int | None,
    **policies: Any,
) -> tuple[_Ticks, StateFile | None]:
    """Make a participant, or restore it, and hold its file open.

    Args:
        kind: which of the two to make.
        coordinator: URL of the coordinator, or the way to it.
        state: what was saved; signing key, scalar and message size are then taken from there.
        state_file: where the state is kept; what is in it counts more than `state`.
        signing_key: of a new participant, as in `TickParticipant`.
        scalar: the same.
        max_message_size: the same.
        policies: what no state holds: threads, `on_clip`, `max_model_length`, `coordinator_key`, `allow_insecure`, `enrolment`
            and what is asked of it.

    Raises:
        ConfigError, ModelError, StateError: as in `spawn_participant`; the file is closed then.
    """
    file = None if state_file is None else StateFile(state_file)
    try:
        stored = None if file is None else file.load()
        state = state if stored is None else stored  # an empty file is damaged, and no reason to begin anew
        if state is not None:
            return kind.restore(state, coordinator, **policies), file
        made = kind(coordinator, signing_key=signing_key, scalar=scalar, max_message_size=max_message_size, **policies)
    except BaseException:
        if file is not None:
            file.close()
        raise
    return made, file
