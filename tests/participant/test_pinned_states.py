"""A saved state remembers the newest round of a pinned coordinator, so that a restart is no way back."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from asgi_server import serving, wait_until
from hostile_coordinators import ManInTheMiddle
from participant_driver import SetClock, quick_settings

from pet.coordinator.engine import CoordinatorEngine
from pet.coordinator.service import CoordinatorService
from pet.crypto import SigningKeyPair
from pet.errors import OtherRoundError, StateError
from pet.participant import AsyncTickParticipant, TickParticipant
from pet.participant.pinned_state import with_newest_round, without_newest_round
from pet.transports import asgi
from pet.transports.http import AsyncHttpTransport, HttpTransport
from pet.transports.pinned import NewestRound
from pet.transports.signed_answers import AnswerSigner

KEY = SigningKeyPair.from_seed(bytes(range(32)))
OTHER = SigningKeyPair.from_seed(bytes(range(1, 33)))
NEWEST = NewestRound(public_key=KEY.public_key, issued=1_700_000_000_000)


@contextlib.contextmanager
def two_rounds():
    """A coordinator in its second round, somebody on the way who kept the answers of the first, and a participant of both."""
    clock = SetClock()
    service = CoordinatorService(CoordinatorEngine(quick_settings(), clock=clock))
    with (
        serving(asgi.create_app(service, signer=AnswerSigner(KEY))) as url,
        ManInTheMiddle(url).listening() as adversary,
        contextlib.closing(HttpTransport(adversary.url, coordinator_key=KEY.public_key)) as transport,
    ):
        participant = TickParticipant(transport)
        participant.tick()
        first = service.engine.parameters()
        old = {answer.path: answer for answer in adversary.seen}
        clock.now_seconds += 1000  # nobody joined: the next round takes its place
        service.engine.tick()
        wait_until(lambda: service.engine.parameters() != first)
        wait_until(lambda: take_step(participant).parameters.to_bytes() == service.engine.parameters())
        adversary.rewrite = lambda answer: old.get(answer.path, answer)
        yield adversary.url, transport, participant, first


def take_step(participant):
    participant.tick()
    return participant


def test_a_restored_participant_is_shown_no_earlier_round():
    with two_rounds() as (_, transport, participant, first):
        state, second = participant.save(), participant.parameters
        restored = take_step(TickParticipant.restore(state, transport))
        assert isinstance(restored.last_error, OtherRoundError)
        assert restored.parameters == second
        assert restored.save() == state
        # What is stated: who begins without a state, or pins another way, does not know.
        assert take_step(TickParticipant(transport)).parameters.to_bytes() == first
        forgetful = without_newest_round(state)[0]
        assert take_step(TickParticipant.restore(forgetful, transport)).parameters.to_bytes() == first


def test_the_same_for_asyncio():
    async def start_again(state):
        inner = AsyncHttpTransport(url, coordinator_key=KEY.public_key)
        restored = AsyncTickParticipant.restore(state, inner)
        await restored.tick()
        await inner.aclose()
        return restored

    with two_rounds() as (url, _, participant, _):
        restored = asyncio.run(start_again(participant.save()))
        assert isinstance(restored.last_error, OtherRoundError)
        assert restored.save() == participant.save()


def test_a_state_without_a_key_is_as_before_and_what_is_known_is_kept():
    with contextlib.closing(HttpTransport("http://127.0.0.1:9")) as plain:
        participant = TickParticipant(plain)
        state = participant.save()
        assert without_newest_round(state) == (state, None)
        known = with_newest_round(state, NEWEST)
        assert TickParticipant.restore(known, plain).save() == known
        for key, newest in ((KEY, NEWEST), (OTHER, None)):
            with contextlib.closing(HttpTransport("http://127.0.0.1:9", coordinator_key=key.public_key)) as pinned:
                restored = TickParticipant.restore(known, pinned)
                assert restored._transport.newest == newest, "another coordinator's rounds say nothing of this one's"
                assert restored.save() == known


def test_what_is_damaged_is_refused():
    with contextlib.closing(HttpTransport("http://127.0.0.1:9")) as transport:
        state = with_newest_round(TickParticipant(transport).save(), NEWEST)
        for place in range(len(state)):
            damaged = bytearray(state)
            damaged[place] ^= 1
            for data in (bytes(damaged), state[:place]):
                with pytest.raises(StateError):
                    TickParticipant.restore(data, transport)
