"""The client's side: a mod that answers the rounds of pet/1 itself and masks what the app's train function returns.

Everything that the server says is checked by the machines of pet/1; what they refuse ends the request with an error, and
nothing leaves the node. A request to train without pet/1 is refused too, or a server could simply ask.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict

from pet.errors import LocalProtocolError, ModelError, RemoteProtocolError
from pet.flower import records
from pet.flower.identity import NodeIdentity
from pet.flower.live_member import LiveMember
from pet.flower.vector import UpdateLayout
from pet.mask_choices import FieldValues
from pet.masking import ShareWeight
from pet.pet1.enrolment import StrengthPolicy
from pet.pet1.round_record import RoundRecord
from pet.protocol import pet1_participant
from pet.protocol.pet1_participant import RoundTerms, UpdateParticipant

_logger: Final = logging.getLogger("flwr.pet")

Next: TypeAlias = Callable[[Message, Context], Message]


class PetMod:
    """A client mod; the first of `ClientApp(mods=[...])`.

    Args:
        least_updates: the fewest updates that a sum with this node's may have, whatever the server says.
        least_passive: how many colluding members an honest server must not suffice with.
        least_active: the same for a server that does anything.

    What identifies the node, and whom it trusts, its operator says in the node config (pet/flower/identity.py).
    """

    def __init__(self, *, least_updates: int = 3, least_passive: int = 1, least_active: int = 1) -> None:
        self.strength: Final = StrengthPolicy(
            least_passive=least_passive, least_active=least_active, least_updates=least_updates
        )
        #: From a member's Check to its Sum2, where both come to this process.
        self._live: Final[dict[bytes, LiveMember]] = {}

    def __call__(self, message: Message, context: Context, call_next: Next) -> Message:
        """Answer a message, or hand it on.

        Raises:
            LocalProtocolError: a request to train in the clear.
            PetError: what the machines refuse, or the node config is wrong; Flower answers with it.
        """
        if message.metadata.message_type.split(".")[0] != "train":
            return call_next(message, context)
        record = message.content.get(records.RECORD)
        if not isinstance(record, ConfigRecord):
            raise LocalProtocolError(
                "pet_mod: expected a round of secure aggregation, got a request to train in the clear:"
                " is the strategy wrapped in SecureAggregation?"
            )
        del message.content[records.RECORD]  # other mods insist on one ConfigRecord
        stage, values = records.read_request(record)
        identity = NodeIdentity.of(context)
        if stage is records.IDENTIFY:
            return _answer(message, {"public-key": identity.key.public_key})
        if stage is records.UPDATE:
            return self._update(message, context, call_next, identity, values)
        return self._member(message, stage, identity, values)

    def _member(self, message: Message, stage: records.Stage, identity: NodeIdentity, values: dict[str, Any]) -> Message:
        """Do a member's part of a stage, from its stored state: each message may come to a process of its own."""
        policy = identity.policy(values["authority"], self.strength)
        live = self._live.pop(identity.key.public_key, None)
        if live is None or not live.goes_on(identity, policy):
            live = LiveMember(identity, policy)
        member = live.machine
        signed = member.join(values["record"], values["enrolment"], int(time.time()))
        if signed is None:
            raise RemoteProtocolError("not_a_member", "pet_mod: expected a round with a slot of this node, got one without")
        if stage is records.SUM:
            return _answer(message, {"message": signed})
        member.receive_committee(values["committee"])
        for header in values["headers"]:
            member.receive_header(header)
        member.receive_manifest(values["manifest"])
        checked = member.sign_check()
        if stage is records.CHECK:
            self._live[identity.key.public_key] = live
            return _answer(message, {"message": checked})
        answered = member.answer(values["certificate"])
        if answered is None:
            raise RemoteProtocolError("bad_update", "pet_mod: expected a good seed of each agreed update, got a bad one")
        return _answer(message, {}, {"message": answered})

    def _update(
        self, message: Message, context: Context, call_next: Next, identity: NodeIdentity, values: dict[str, Any]
    ) -> Message:
        """Train, and mask what comes of it."""
        asked = RoundRecord.from_bytes(values["record"]).config.values
        participant = UpdateParticipant(
            signing_key=identity.key,
            policy=identity.policy(values["authority"], self.strength),
            entropy=os.urandom,
            store=identity.store(pet1_participant.ROLE),
            terms=RoundTerms(values=FieldValues.F64 if asked is FieldValues.F64 else FieldValues.F32),
            saved=identity.saved(pet1_participant.ROLE),
        )
        joined = participant.join(values["record"], values["enrolment"], int(time.time()))
        if joined is None:
            raise RemoteProtocolError("not_enrolled", "pet_mod: expected a round that this node is enrolled in, got another")
        (base,) = _only(message.content, ArrayRecord)
        layout = UpdateLayout.of(records.numpy_arrays(base[1]), joined.config)
        participant.check_model(layout.base_bytes())
        reply = call_next(message, context)
        if reply.has_error():
            return reply
        return self._mask(message, reply, participant, joined, layout, values)

    def _mask(
        self,
        message: Message,
        reply: Message,
        participant: UpdateParticipant,
        joined: RoundRecord,
        layout: UpdateLayout,
        values: dict[str, Any],
    ) -> Message:
        (arrays,), (metrics,) = _only(reply.content, ArrayRecord), _only(reply.content, MetricRecord)
        weight_key = values["weighted-by"]
        numbers = _numbers(metrics[1])
        if weight_key not in numbers:
            raise ModelError(f"metrics: expected {weight_key!r}, the weight of the update, got {sorted(numbers)}")
        weight = numbers.pop(weight_key)
        try:
            scalar = ShareWeight(values["max-weight"])(weight)
        except ModelError as error:
            raise ModelError(f"{weight_key}: {error} (SecureAggregation(max_weight=...) says the largest)") from None
        vector = layout.encode(records.numpy_arrays(arrays[1]), numbers)
        update = participant.mask(values["committee"], vector, scalar)
        if update.clipped_count:
            _logger.warning(
                "pet: %d of %d numbers were beyond the bound %g and were clamped: SecureAggregation(bound=...) widens it",
                update.clipped_count,
                joined.model_length,
                joined.config.bound,
            )
        fields = {
            "layout": layout.digest(list(numbers)),
            "metrics": sorted(numbers),
            "arrays-key": arrays[0],
            "metrics-key": metrics[0],
        }
        return _answer(message, fields, {"sealed": update.sealed, "vector": bytes(update.vector)})


def _answer(message: Message, fields: dict[str, Any], large: dict[str, bytes] | None = None) -> Message:
    content = RecordDict({records.RECORD: ConfigRecord(fields)})
    if large is not None:
        content[records.LARGE] = records.large_record(large)
    return Message(content, reply_to=message)


def _only(content: RecordDict, kind: type[Any]) -> list[tuple[str, Any]]:
    """Return the name and the record of the one record of a kind.

    Raises:
        ModelError: there is none, or several.
    """
    found = [(name, record) for name, record in content.items() if isinstance(record, kind)]
    if len(found) != 1:
        raise ModelError(f"message: expected one {kind.__name__}, got {len(found)}")
    return found


def _numbers(record: MetricRecord) -> dict[str, float]:
    """Return metrics as numbers by name.

    Raises:
        ModelError: one is a list, whose mean Flower takes and we do not.
    """
    for name, value in record.items():
        if not isinstance(value, (int, float)):
            raise ModelError(f"metric {name!r}: expected a number, got a {type(value).__name__}")
    return {name: float(value) for name, value in record.items()}


pet_mod: Final = PetMod()
