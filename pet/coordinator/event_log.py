"""Turn the events of a coordinator into log lines: phases, refusals, results, and phases that wait unusually long.

Each line carries its values twice, in the text as key=value and as attributes of the log record (`round_id`, `phase`, ...), for
people and for log collectors. Keys of participants are not logged; contents of messages are not known here.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from pet.protocol.events import (
    Event,
    MessageAccepted,
    MessageDiscarded,
    MessageRefused,
    ModelPublished,
    PhaseEntered,
    RoundFailed,
    RoundReopened,
    SeedDictionaryPublished,
    SumDictionaryPublished,
)
from pet.protocol.pet1_publications import CertificatePublished, Pet1Publication, TotalPublished
from pet.protocol.phases import Phase

_logger: Final = logging.getLogger("pet.coordinator")

#: A phase that has waited this long is logged, or half of its maximum time if that is shorter: participants poll every ten
#: seconds at most, so in Sum and Sum2 something is likely to be wrong by then.
LONG_WAIT_SECONDS: Final = 30.0


class EventLog:
    """A subscriber of an engine that logs.

    Anybody on the network can cause refusals, so only the first of each reason in a phase is a line of its own above debug
    level; how many there were is said when the phase ends.
    """

    def __init__(self) -> None:
        self._phase: Phase | None = None
        self._round_id = 0
        self._accepted = 0
        self._discarded = 0
        self._rejected: Counter[str] = Counter()

    def __call__(self, event: Event | Pet1Publication) -> None:
        """Log one event."""
        match event:
            case PhaseEntered():
                self._end_phase()
                self._phase, self._round_id = event.phase, event.round_id
                _log(logging.INFO, "phase entered", round_id=event.round_id, phase=event.phase.value)
            case MessageAccepted():
                self._accepted += 1
                _log(logging.DEBUG, "message accepted", round_id=event.round_id, tag=event.tag.name, accepted=self._accepted)
            case MessageRefused():
                self._rejected[event.reason] += 1
                level = logging.WARNING if self._rejected[event.reason] == 1 else logging.DEBUG
                _log(level, "message refused", round_id=event.round_id, phase=event.phase.value, reason=event.reason)
            case MessageDiscarded():
                self._discarded += 1
                _log(logging.DEBUG, "message discarded", round_id=event.round_id, phase=event.phase.value)
            case RoundFailed():
                _log(
                    logging.WARNING,
                    "round failed",
                    round_id=event.round_id,
                    reason=event.reason,
                    description=event.description,
                )
            case RoundReopened():
                _log(logging.INFO, "round reopened", round_id=event.round_id, description=event.description)
            case ModelPublished():
                _log(
                    logging.INFO,
                    "model published",
                    round_id=event.round_id,
                    length=len(event.model),
                    models=event.model.model_count,
                )
            case SumDictionaryPublished():
                _log(logging.DEBUG, "sums published", round_id=event.round_id, entries=len(event.sum_dictionary))
            case SeedDictionaryPublished():
                _log(logging.DEBUG, "seeds published", round_id=event.round_id, entries=len(event.seed_dictionary))
            case CertificatePublished():
                _log(
                    logging.INFO,
                    "certificate published",
                    round_id=event.round_id,
                    excluded=len(event.excluded),
                    worthless_complaints=sum(event.worthless_complaints.values()),
                )
            case TotalPublished():
                _log(
                    logging.INFO,
                    "model published",
                    round_id=event.round_id,
                    length=len(event.model),
                    models=event.update_count,
                    wrong_slots=event.wrong_slots,
                    unchecked_groups=event.unchecked_groups,
                )
            case _:
                _log(logging.DEBUG, type(event).__name__, round_id=event.round_id)

    def _end_phase(self) -> None:
        """Summarise the outcomes of the messages of the phase that just ended."""
        if self._accepted or self._discarded or self._rejected:
            _log(
                logging.INFO,
                "phase ended",
                round_id=self._round_id,
                phase=self._phase.value if self._phase else "none",
                accepted=self._accepted,
                discarded=self._discarded,
                rejected=dict(self._rejected),
            )
        self._accepted = self._discarded = 0
        self._rejected.clear()


class WaitLog:
    """Logs once in a phase that it has waited unusually long, and what for.

    A coordinator that nobody joins opens one round after another: that is logged once, until a round has ended otherwise.
    """

    def __init__(self) -> None:
        self._logged: tuple[str, int] | None = None

    def look(self, status: Mapping[str, Any]) -> None:
        """Log what the phase waits for, if it is time.

        Args:
            status: the record of `GET /status`.
        """
        waiting = status["waiting"]
        if waiting is None or not waiting["missing"]:
            return
        if waiting["seconds"] < min(LONG_WAIT_SECONDS, (waiting["seconds"] + status["seconds_left"]) / 2):
            return
        key = (status["phase"], status["round"])
        if waiting["at_time_out"] == "reopen":
            key = ("nobody joins", status["rounds_completed"] + status["rounds_failed"])
        if key != self._logged:
            self._logged = key
            _log(
                logging.WARNING,
                "phase waits",
                round_id=status["round"],
                phase=status["phase"],
                description=f"{waiting['text']}. {waiting['advice']}",
            )


def _log(level: int, what: str, **values: Any) -> None:
    if _logger.isEnabledFor(level):
        text = " ".join(f"{name}={value}" for name, value in values.items())
        _logger.log(level, "%s %s", what, text, extra=values)
