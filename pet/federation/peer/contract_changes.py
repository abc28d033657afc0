"""Which contract counts at this peer: the admin proposes, in native mode the peer's user agrees, and at most five times a day.

A contract is evaluated on numbers, and what a peer does then can be seen. So a contract that the admin may change as often as
it likes, unasked, is a way to read those numbers digit by digit.

Source: docs/spec/federation.md 1.6.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Annotated, Final

from pet.errors import FederationStateError, StateError, TooSoonError
from pet.federation.formats.json_form import Amount, AsList, JsonForm
from pet.federation.peer.context import PeerContext
from pet.federation.records import ContractRecord, Mode

MAX_CHANGES_PER_DAY: Final = 5
_DAY_SECONDS: Final = 86_400.0
_STATE: Final = "contract_changes"


@dataclass(slots=True)
class _State:
    """What is remembered.

    Attributes:
        moments: Unix times of the changes of the last day.
        proposed: what waits for the user's consent.
        waiting: the newest change beyond those of a day; it counts when the day is over.
    """

    moments: list[Amount] = field(default_factory=list)
    proposed: Annotated[ContractRecord, AsList()] | None = None
    waiting: Annotated[ContractRecord, AsList()] | None = None


_FORM: Final = JsonForm(_State)


class ContractChanges:
    """The contract of one peer.

    Args:
        context: of this peer.
    """

    def __init__(self, context: PeerContext) -> None:
        self._context: Final = context
        self._state = _State() if (saved := context.store.load_state(_STATE)) is None else _read(saved)

    @property
    def proposed(self) -> ContractRecord | None:
        """The change that waits for the consent of this peer's user."""
        return self._state.proposed

    def take(self, offered: ContractRecord) -> ContractRecord:
        """Return the contract that counts here once the admin has shown one; a change may have to wait."""
        current, state = self._context.terms.contract, self._state
        known = [one.counter for one in (current, state.proposed, state.waiting) if one is not None]
        if offered.counter > max(known):
            state.waiting = offered
            if self._turns_left() <= 0:
                self._context.log_sync(f"Contract change {offered.counter} waits: {MAX_CHANGES_PER_DAY} a day are taken")
        return self._settled()

    def settle(self) -> None:
        """Let a change count, or be proposed, that had to wait for its day to be over."""
        contract = self._settled()
        if contract is not self._context.terms.contract:
            self._set(contract)

    def accept(self, number: int) -> None:
        """Let the proposed change count, as this peer's user says.

        Args:
            number: of the change that the user has seen.

        Raises:
            FederationStateError: there is none, or another one by now.
        """
        proposed = self._state.proposed
        if proposed is None:
            raise FederationStateError("contract: expected a change that waits for consent, got none")
        if proposed.counter != number:
            raise FederationStateError(f"contract: expected consent to change {proposed.counter}, got it to {number}")
        self._state.proposed = None
        self._save()
        self._set(proposed)
        self._context.log_sync(f"Contract change {number} was accepted")

    def require_turn(self) -> None:
        """Check whether this peer may make a change itself, as the admin of a native federation.

        Raises:
            TooSoonError: there were five in a day.
        """
        if self._context.terms.mode is Mode.NATIVE and self._turns_left() <= 0:
            wait = self._state.moments[0] + _DAY_SECONDS - self._context.clock.now_seconds()
            raise TooSoonError(f"contract: expected at most {MAX_CHANGES_PER_DAY} changes a day, got one more", wait)

    def count_turn(self) -> None:
        """Count a change that this peer made itself."""
        self._count()
        self._save()

    def _settled(self) -> ContractRecord:
        context, state = self._context, self._state
        current = context.terms.contract
        if state.waiting is None or self._turns_left() <= 0:
            self._save()
            return current
        contract, state.waiting, state.proposed = state.waiting, None, None
        self._count()
        needs_consent = context.terms.mode is Mode.NATIVE and not context.record.accepts_contracts
        if needs_consent and contract.lines != current.lines:
            state.proposed, contract = contract, current
            context.log_sync(f"Contract change {state.proposed.counter} waits for consent (accept-contract)")
        else:
            context.log_sync(f"Contract change {contract.counter} counts from now on: {len(contract.lines)} lines")
        self._save()
        return contract

    def _turns_left(self) -> int:
        """Return how many changes may still be taken today."""
        since = self._context.clock.now_seconds() - _DAY_SECONDS
        self._state.moments = [moment for moment in self._state.moments if moment > since]
        return MAX_CHANGES_PER_DAY - len(self._state.moments)

    def _count(self) -> None:
        self._state.moments.append(self._context.clock.now_seconds())

    def _set(self, contract: ContractRecord) -> None:
        context = self._context
        context.set_record(replace(context.record, terms=replace(context.terms, contract=contract)))

    def _save(self) -> None:
        self._context.store.save_state(_STATE, json.dumps(_FORM.fields(self._state)).encode())


def _read(saved: bytes) -> _State:
    with StateError.reading("changes of the contract"):
        return _FORM.read(json.loads(saved))
