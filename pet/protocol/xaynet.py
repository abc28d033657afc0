"""xaynet's profile: five phases, tasks by signature, masks that are voted for.

How its messages change a round is in pet/protocol/intake.py, what is announced in pet/protocol/announcements.py.

Source: docs/spec/pet.md 1.3 to 1.8, 6.3, 9.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, ParamSpec, TypeAlias, cast

from pet.crypto import EncryptionKeyPair, derive_round_seed
from pet.crypto_batches import verify_groups
from pet.errors import RemoteProtocolError, UnmaskError
from pet.messages import (
    XAYNET_PAYLOADS,
    HeadCheck,
    Message,
    MessageTag,
    Payload,
    Refused,
    RoundParameters,
    Tag,
    open_message,
    open_messages,
)
from pet.protocol import events
from pet.protocol.announcements import announcements_of, publish_seed_dictionary, publish_sum_dictionary
from pet.protocol.entries import Entry
from pet.protocol.events import Publication
from pet.protocol.intake import require_first, require_sum_participant, take_payload
from pet.protocol.phases import XAYNET_PHASES, Phase
from pet.protocol.profile import CollectingWindow, Profile, RoundFailure, RoundRules, RoundStart
from pet.protocol.round_settings import RoundSettings
from pet.protocol.round_state import RoundState
from pet.protocol.strategies import (
    DEFAULT_STRATEGIES,
    Strategies,
    TaskClaim,
    check_task_by_signature,
    require_task,
    task_claims,
)

_Arguments = ParamSpec("_Arguments")

#: Why a round can fail. "unmasking" stands for everything else that UnmaskError can say; the description has it.
FAILURE_REASONS: Final = ("timeout", "no_mask", "ambiguous_masks", "zero_scalar_sum", "unmasking")


@dataclass(frozen=True, slots=True)
class XaynetRules(RoundRules[RoundSettings, RoundState, Entry, Publication]):
    """How rounds run as xaynet knows them.

    Attributes:
        strategies: who takes part, with which task, and which mask counts.
    """

    strategies: Strategies = DEFAULT_STRATEGIES

    def windows(self, settings: RoundSettings, _current: RoundState | None = None) -> Mapping[Phase, CollectingWindow]:
        """Return the windows that the settings say."""
        return {Phase.SUM: settings.sum, Phase.UPDATE: settings.update, Phase.SUM2: settings.sum2}

    def begin(self, settings: RoundSettings, start: RoundStart[RoundState]) -> tuple[RoundState, bytes, Sequence[Publication]]:
        """Draw the keys of a round and derive its seed (spec 1.5)."""
        keys = EncryptionKeyPair.from_seed(start.entropy(32))
        seed = derive_round_seed(keys, start.previous_seed, settings.sum_probability, settings.update_probability)
        parameters = RoundParameters(
            coordinator_public_key=keys.public_key,
            sum_probability=settings.sum_probability,
            update_probability=settings.update_probability,
            seed=seed,
            mask_config=settings.mask_config,
            model_length=settings.model_length,
        )
        current = RoundState.begin(settings, keys, parameters, start.chunk_store)
        return current, seed, [events.ParametersPublished(round_id=start.round_id, parameters=parameters)]

    def require_first(self, current: RoundState, participant_public_key: bytes, tag: MessageTag) -> None:
        """Refuse a participant whose message of that kind is in the round already; reasons as `intake.require_first`."""
        require_first(current, participant_public_key, tag)

    def admit(self, current: RoundState, participant_public_key: bytes, tag: MessageTag) -> None:
        """Refuse who may not take part, has sent its message, or votes without having been a sum participant."""
        self.strategies.admit(participant_public_key)
        if tag is Tag.SUM2:
            require_sum_participant(current, participant_public_key)
        self.require_first(current, participant_public_key, tag)

    def head_check(self, current: RoundState, participant_public_key: bytes, tag: MessageTag) -> HeadCheck | None:
        """Have the task checked from the signatures that a payload begins with, where they are all that it takes."""
        strategies = self.strategies
        if not strategies.checks_signatures_alone:
            return None

        def check(head: bytes) -> None:
            strategies.check_task(participant_public_key, TaskClaim.of(cast("Tag", tag), head), current.parameters)

        return HeadCheck(TaskClaim.size_bytes(cast("Tag", tag)), check)

    def check_sender(self, current: RoundState, message: Message, payload: object) -> None:
        """Check who takes part, then the task."""
        public_key = message.participant_public_key
        self.strategies.admit(public_key)
        self.strategies.check_task(public_key, cast("Payload", payload), current.parameters)

    def check_senders(self, current: RoundState, messages: Sequence[Message]) -> list[Refused | None]:
        """Check who takes part, then the tasks, whose signatures are verified together first."""
        if self.strategies.check_task is not check_task_by_signature:
            return super(XaynetRules, self).check_senders(current, messages)
        parameters, refusals, groups = current.parameters, [], []
        for message in messages:
            refused = _refused_by(self.strategies.admit, message.participant_public_key)
            refusals.append(refused)
            groups.append(
                task_claims(message.participant_public_key, cast("Payload", message.payload), parameters)
                if refused is None
                else []
            )
        valid = verify_groups(groups)
        return [
            refused or _refused_by(require_task, cast("Payload", message.payload), parameters, count)
            for message, refused, count in zip(messages, refusals, valid, strict=True)
        ]

    def take(self, current: RoundState, message: Message, payload: object) -> Entry:
        """Check the content, in the order of docs/protocol.md, then take the message into the round."""
        return take_payload(current, message, cast("Payload", payload))  # the codec of the profile decodes nothing else

    def end_phase(self, round_id: int, current: RoundState, phase: Phase) -> Sequence[Publication]:
        """Return what the phase that ends has for the participants of the next one."""
        if phase is Phase.SUM:
            return [publish_sum_dictionary(round_id, current)]
        if phase is Phase.UPDATE:
            return [publish_seed_dictionary(round_id, current)]
        return self.withdraw(round_id, current)

    def time_out(self, phase: Phase) -> tuple[str, str]:
        """Return "timeout"; in the Sum phase people are given its cause as well."""
        return "timeout", ": too few sum participants joined" if phase is Phase.SUM else ""

    def finish(self, round_id: int, current: RoundState) -> Publication | RoundFailure:
        """Choose a mask and take it off the sum; without a mask, or without a mean, the round fails."""
        try:
            mask = self.strategies.choose_mask(current.votes)
            model = current.aggregation.unmask(mask)
            # A model that nobody could read would take the place of one that everybody can.
            model.validate()
        except UnmaskError as error:
            reason = error.reason if error.reason in FAILURE_REASONS else "unmasking"
            return RoundFailure(reason, f"{error.reason}: {error}")
        return events.ModelPublished(round_id=round_id, model=model)

    def withdraw(self, round_id: int, _current: RoundState | None) -> Sequence[Publication]:
        """Return the event that empties `/sums` and `/seeds`."""
        return [events.DictionariesWithdrawn(round_id=round_id)]

    def announce(self, round_id: int, current: RoundState, phase: Phase) -> Sequence[Publication]:
        """Return the parameters, and the dictionaries that are published in a phase."""
        return announcements_of(round_id, current, phase)


def _refused_by(
    check: Callable[_Arguments, None], *arguments: _Arguments.args, **keywords: _Arguments.kwargs
) -> Refused | None:
    """Return why a check refuses something; None if it does not."""
    try:
        check(*arguments, **keywords)
    except RemoteProtocolError as error:
        return Refused.of(error)
    return None


XaynetProfile: TypeAlias = Profile[RoundSettings, RoundState, Entry, Publication]


def xaynet_profile(strategies: Strategies = DEFAULT_STRATEGIES) -> XaynetProfile:
    """Return xaynet's profile with some decisions made differently."""
    return Profile(
        name="xaynet",
        codec=XAYNET_PAYLOADS,
        open_message=open_message,
        open_together=open_messages,
        phases=XAYNET_PHASES,
        rules=XaynetRules(strategies),
    )


#: PET as xaynet v0.11.0 and later speak it (docs/spec/pet.md).
XAYNET: Final[XaynetProfile] = xaynet_profile()
