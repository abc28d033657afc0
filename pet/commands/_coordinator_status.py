"""What a coordinator waits for, as a command that plays its participants shows it.

The words come from the coordinator, over the network: they are bounded, and cannot move the cursor of a terminal.
"""

from __future__ import annotations

from typing import Any, Final

from pet.errors import PetError
from pet.messages import RoundParameters
from pet.transports.base import Transport
from pet.transports.status import StatusTransport

_MAX_TEXT_LENGTH: Final = 500


def what_it_waits_for(transport: Transport, participant_count: int) -> str | None:
    """Ask a coordinator what its phase waits for.

    Args:
        transport: the way to it.
        participant_count: how many participants there are on this side.

    Returns:
        Sentences for people; None if it does not say, as xaynet's coordinators do not, or waits for nothing.
    """
    if not isinstance(transport, StatusTransport):
        return None
    try:
        waiting = transport.get_status().get("waiting")
        if not isinstance(waiting, dict) or not isinstance(waiting.get("text"), str):
            return None
        parameters = RoundParameters.from_bytes(transport.get_parameters())
    except PetError:
        return None
    sentences = [f"The coordinator says: {_plain(waiting['text'])}.", _plain(waiting.get("advice"))]
    chance = {"sum": parameters.sum_probability, "update": (1 - parameters.sum_probability) * parameters.update_probability}
    if waiting.get("missing") and (share := chance.get(str(waiting.get("kind")))):
        sentences.append(
            f"Of the {participant_count} participants here {participant_count * share:.1f} are drawn for it on average:"
            " try a larger --count."
        )
    return " ".join(filter(None, sentences))


def _plain(text: Any) -> str:
    """Return text without control characters, bounded; nothing for what is no text."""
    if not isinstance(text, str):
        return ""
    return "".join(character for character in text[:_MAX_TEXT_LENGTH] if character.isprintable())
