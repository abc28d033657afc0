"""A coordinator of pet/1 over HTTP or NATS, with keys and enrolments as files: what tests of processes and threads share."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asgi_server import serving
from nats_broker import FEDERATION, serving_nats
from pet1_parties import THREE_OF_FIVE, Parties

import pet
from pet.bodies.body import SealedBody, as_sealed_body
from pet.coordinator.pet1_engine import Pet1Engine
from pet.coordinator.service import CoordinatorService
from pet.crypto import KEY_SEED_BYTES, SigningKeyPair, open_sealed
from pet.errors import CryptoError, StorageError
from pet.participant import BackOff, CommitteeMember
from pet.protocol.pet1_round import Pet1Settings
from pet.protocol.pet1_windows import PhaseTimes
from pet.transports.asgi import create_app
from pet.transports.nats import NatsSettings, NatsTransport
from pet.transports.pet1 import Pet1Document

FLOATS = pet.MaskConfig.parse("pet-1/z32,f32,bound=1,models=100")
QUICK = BackOff(initial_seconds=0.01, max_seconds=0.05, jitter=0)
#: With everybody a phase ends at once; a member that is killed is waited for.
_TIMES = PhaseTimes(min_seconds=30, max_seconds=60)


class RecordingEngine(Pet1Engine):
    """An engine that notes what it is sent: signed messages, by round, sender and tag."""

    def __init__(self, settings: Pet1Settings) -> None:
        super().__init__(settings, threads=1)
        self.signed: dict[tuple[bytes, bytes, int], set[bytes]] = {}

    def handle_messages(self, bodies: Sequence[SealedBody]) -> list[StorageError | None]:
        for body in bodies:
            keys = self._protocol.encryption_keys
            assert keys is not None
            with as_sealed_body(body).open() as data, contextlib.suppress(CryptoError):  # of the round before
                message = open_sealed(bytes(data), keys)
                self.signed.setdefault((message[96:128], message[64:96], message[132]), set()).add(message)
        return super().handle_messages(bodies)


@dataclass
class ServedRounds:
    """A coordinator that is served, and who may take part.

    Attributes:
        url: where it is.
        way: what members get: the URL, or a transport that they share.
        engine: what is behind it.
        parties: keys, and the enrolment.
        folder: with the enrolment's file, and keys and states of members.
    """

    url: str
    engine: RecordingEngine
    parties: Parties
    folder: Path
    way: Any = None

    @property
    def enrolment(self) -> Path:
        return self.folder / "trial.enrolment"

    def key_file(self, slot: int) -> Path:
        path = self.folder / f"member-{slot}.key"
        if not path.exists():
            write_key(path, self.parties.member_keys[slot])
        return path

    def models(self) -> list[bytes]:
        found = self.engine.document(Pet1Document.MODEL)
        return [] if found is None else [bytes(found.data)]

    @property
    def rounds_completed(self) -> int:
        completed: int = self.engine.status()["rounds_completed"]
        return completed

    @contextlib.contextmanager
    def members(self, slots: Iterable[int] = range(5)) -> Iterator[list[CommitteeMember]]:
        """Run members in threads of this process; an error of theirs is the test's."""
        made = [
            CommitteeMember(
                self.way or self.url,
                self.parties.member_keys[slot],
                self.enrolment,
                state_file=self.folder / f"member-{slot}.state",
                new=not (self.folder / f"member-{slot}.state").exists(),
                back_off=QUICK,
                threads=1,
            )
            for slot in slots
        ]
        errors: list[Exception] = []

        def run(member: CommitteeMember) -> None:
            try:
                member.run()
            except Exception as error:
                errors.append(error)

        threads = [threading.Thread(target=run, args=(member,)) for member in made]
        for thread in threads:
            thread.start()
        try:
            yield made
        finally:
            for member in made:
                member.stop()
            for thread in threads:
                thread.join(30)
            for member in made:
                member.close()
        if errors:
            raise errors[0]


@contextlib.contextmanager
def served_rounds(folder: Path, participant_count: int = 3, model_length: int = 5, **changes: Any) -> Iterator[ServedRounds]:
    """Serve a coordinator of pet/1 over HTTP."""
    engine, parties = make_engine(folder, participant_count, model_length, **changes)
    with serving(create_app(CoordinatorService(engine))) as url:
        yield ServedRounds(url, engine, parties, folder)


@contextlib.contextmanager
def served_over_nats(
    folder: Path, settings: NatsSettings, participant_count: int = 3, **changes: Any
) -> Iterator[ServedRounds]:
    """Serve a coordinator of pet/1 over a broker; members share a transport."""
    engine, parties = make_engine(folder, participant_count, **changes)
    with (
        serving_nats(CoordinatorService(engine), settings),
        contextlib.closing(NatsTransport(settings, FEDERATION, peer="members")) as way,
    ):
        yield ServedRounds(settings.hosts[0], engine, parties, folder, way)


def make_engine(
    folder: Path, participant_count: int = 3, model_length: int = 5, **changes: Any
) -> tuple[RecordingEngine, Parties]:
    """Return a coordinator with five members, three of whom recover a sum, and who they are; writes their enrolment."""
    parties = Parties(THREE_OF_FIVE, participant_count)
    signed = parties.enrolment.sign(parties.authority)
    settings = Pet1Settings(
        config=FLOATS,
        model_length=model_length,
        served_enrolment=signed,
        min_count=participant_count,
        max_count=participant_count,
        **{"sum": _TIMES, "update": _TIMES, "check": _TIMES, "sum2": _TIMES, **changes},
    )
    (folder / "trial.enrolment").write_bytes(signed)
    return RecordingEngine(settings), parties


def write_key(path: Path, key: SigningKeyPair) -> None:
    """Write a key file as `pet key new` does, with a key that is known."""
    path.touch(0o600)
    path.write_text(f"pet-coordinator-key-1 {key.secret_key[:KEY_SEED_BYTES].hex()}\n")
