"""What a fleet of dummy participants has seen and done, as a value that can be shown."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetProgress:
    """What the fleet has seen and done since it was started.

    Attributes:
        sweeps: how often every participant had its turn.
        rounds_finished: rounds that ended with a mask of ours delivered, or under pet/1 an update, and a global model that was
            not there before.
        rounds_given_up: rounds that ended otherwise.
        sum_tasks: selections for the sum task, over all rounds.
        update_tasks: selections for the update task.
        messages_delivered: whole messages that arrived, and not too late, as far as participants can know.
        messages_late: messages that came too late for their round or phase.
        last_error: why the coordinator gave no usable answer in the last sweep; None if it did.
        last_warning: what went wrong last that the fleet goes on after: weights that were clipped, a message that was refused.
        warning_count: how many warnings there were.
    """

    sweeps: int = 0
    rounds_finished: int = 0
    rounds_given_up: int = 0
    sum_tasks: int = 0
    update_tasks: int = 0
    messages_delivered: int = 0
    messages_late: int = 0
    last_error: str | None = None
    last_warning: str | None = None
    warning_count: int = 0
