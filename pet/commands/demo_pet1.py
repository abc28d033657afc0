"""`pet demo --profile pet/1`: the same training with a committee of five, one of whom vanishes, and one bad update.

Members and participants are the ones that anybody runs, over HTTP; only the two who misbehave are the demo's own.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pet.commands import demo_data
from pet.commands.demo_bad_box import send_bad_box
from pet.commands.demo_check import Check
from pet.commands.demo_data import DemoData, Weights
from pet.commands.demo_participants import POLL_SECONDS, DemoParticipant, Ledger
from pet.commands.demo_scene import SUM2_SECONDS, SUM_SECONDS, UPDATE_SECONDS, Misfortune, Scene
from pet.coordinator.pet1_engine import Pet1Engine
from pet.crypto import SigningKeyPair
from pet.field_config import FieldConfig
from pet.mask_config import MaskConfig
from pet.masking import Scalar
from pet.messages import MessageTag
from pet.participant import CommitteeMember, TickParticipant
from pet.participant.member_machine import MemberSent
from pet.pet1.enrolment import Enrolment
from pet.pet1.messages import Pet1Tag
from pet.plan import Plan
from pet.protocol.pet1_round import Pet1Settings
from pet.protocol.pet1_windows import PhaseTimes
from pet.protocol.phases import Phase
from pet.transports.http import HttpTransport

#: Trained weights stay within 8; twenty participants need room for twice as many (docs/spec/profile.md 4.1).
CONFIG: Final = MaskConfig.parse("pet-1/z32,f32,bound=8,models=40")
PLAN: Final = Plan(groups=1, members=5, threshold=3, quorum=4)
MEMBER_NAMES: Final = ("North", "South", "East", "West", "Harbour")
#: Who vanishes, and whose box is spoilt.
_VANISHING, _VICTIM = 4, 1
_CHECK_SECONDS: Final = (0.5, 6.0)


_PHASE_TEXTS: Final = {
    Phase.IDLE: "a new round",
    Phase.SUM: "sum phase: members offer a key each",
    Phase.UPDATE: "update phase: participants train, mask and send",
    Phase.CHECK: "check phase: members sign the list of updates",
    Phase.SUM2: "sum2 phase: members answer with shares of the masks' sum",
    Phase.UNMASK: "unmasking the sum",
    Phase.FAILURE: "the round failed",
    Phase.SHUTDOWN: "shutting down",
}
_MESSAGE_NAMES: Final[Mapping[MessageTag, str]] = {
    Pet1Tag.SUM: "members",
    Pet1Tag.UPDATE: "updates",
    Pet1Tag.CHECK: "signatures",
    Pet1Tag.SUM2: "answers",
}


class Pet1Scene(Scene):
    """pet/1 with five members, three of whom can open a sum.

    Args:
        data: who has which samples.
        vanishes_in: the round after whose Check a member vanishes, counted from 1.
        cheat: the participant that sends a bad box.
        cheats_in: the round in which it does.
    """

    config = CONFIG
    phase_texts = _PHASE_TEXTS
    message_names = _MESSAGE_NAMES
    update_tag, answer_tag = Pet1Tag.UPDATE, Pet1Tag.SUM2

    def __init__(self, data: DemoData, *, vanishes_in: int, cheat: int, cheats_in: int) -> None:
        self._data: Final = data
        self._vanishes_in, self._cheat, self._cheats_in = vanishes_in, cheat, cheats_in
        self._largest: Final = max(map(len, data.participants))
        self._member_keys: Final = [SigningKeyPair.generate() for _ in MEMBER_NAMES]
        self._keys: Final = [SigningKeyPair.generate() for _ in data.participants]
        names = {key.public_key: name for key, name in zip(self._member_keys, MEMBER_NAMES, strict=True)}
        names |= {key.public_key: f"participant {index + 1}" for index, key in enumerate(self._keys)}
        self.enrolment: Final = Enrolment(
            version=1,
            plan=PLAN,
            min_updates=3,
            members=tuple(key.public_key for key in self._member_keys),
            participants=tuple(sorted(key.public_key for key in self._keys)),
            names=names,
        )

    def make_engine(self) -> Pet1Engine:
        """Return the coordinator."""
        assert isinstance(CONFIG, FieldConfig), "it is a config of pet-1"
        return Pet1Engine(
            Pet1Settings(
                config=CONFIG,
                model_length=demo_data.MODEL_LENGTH,
                served_enrolment=self.enrolment.to_bytes() + bytes(64),
                max_count=len(self._keys),
                sum=_times(SUM_SECONDS),
                update=_times(UPDATE_SECONDS),
                check=_times(_CHECK_SECONDS),
                sum2=_times(SUM2_SECONDS),
                committee_spare=0,  # once a member has vanished there is none
            )
        )

    def make_participant(
        self, url: str, index: int, ledger: Ledger, on_misfortune: Callable[[Misfortune], None]
    ) -> DemoParticipant:
        """Return a participant that was not started yet."""
        participant = TickParticipant(
            url, signing_key=self._keys[index], scalar=self.scalar(index), threads=1, enrolment=self.enrolment
        )
        own = index, participant, self._data.participants[index], ledger
        if index != self._cheat:
            return DemoParticipant(*own)
        name = f"participant {index + 1}"
        cheating = Misfortune(
            index, f"{name}\ncheats", f"{name} sends an update whose box for {MEMBER_NAMES[_VICTIM]} does not open"
        )
        return _Cheat(
            *own,
            url=url,
            key=self._keys[index],
            cheats_in=self._cheats_in,
            on_sent=lambda: on_misfortune(cheating),
        )

    def scalar(self, index: int) -> Scalar:
        """Return a participant's number of samples as a share of the largest: shares of all would waste bits."""
        return len(self._data.participants[index]) / self._largest

    def check(self, model: NDArray[np.float64], weights: Sequence[Weights], scalars: Sequence[Scalar]) -> Check:
        """Compare a global model with the mean of what was masked, within the bound of docs/spec/profile.md 4.1."""
        assert isinstance(CONFIG, FieldConfig), "it is a config of pet-1"
        total = float(sum(map(float, scalars)))
        mean = sum(float(scalar) * vector.astype(np.float64) for scalar, vector in zip(scalars, weights, strict=True)) / total
        largest = float(np.abs(mean).max())
        fixed_point = len(weights) / CONFIG.levels * (CONFIG.bound * (1 + 2.0**-17) + largest / 2) / total
        # Of first order, so a thousandth more; the model is published in single precision.
        return Check(error=float(np.abs(model - mean).max()), tolerance=1.001 * fixed_point + largest * 2.0**-24)

    @contextmanager
    def company(self, url: str, on_misfortune: Callable[[Misfortune], None]) -> Iterator[None]:
        """Run the members."""
        with tempfile.TemporaryDirectory(prefix="pet-demo-") as folder:
            members = [
                _MemberThread(url, name, key, self.enrolment, Path(folder) / name, on_misfortune)
                for name, key in zip(MEMBER_NAMES, self._member_keys, strict=True)
            ]
            members[_VANISHING].vanishes_in = self._vanishes_in
            for member in members:
                member.start()
            try:
                yield
            finally:
                for member in members:
                    member.stop()

    def how_it_works(self) -> str:
        """Return how a round goes, for people."""
        return (
            f"{self.enrolment.describe()}\n"
            "In every round the members offer a key each; participants train, hide their model under masks, and send it to a"
            " coordinator on this machine, over HTTP, with the masks' seeds in boxes for the members. The members sign the list"
            " of updates, and then answer with shares of the masks' sum. A member vanishes, and a participant cheats."
        )

    def who_learns_what(self, counts: Mapping[MessageTag, int]) -> str:
        """Return what the coordinator saw, and what that rests on."""
        helpers = f"unless {PLAN.active + 1} of the {PLAN.member_count} members help it"
        if PLAN.passive != PLAN.active:
            helpers += f"; for one that follows the protocol, unless {PLAN.passive + 1} do"
        return (
            f"[bold]The coordinator saw[/bold] who took part, {counts[Pet1Tag.UPDATE]} masked models (noise without their"
            f" masks), {counts[Pet1Tag.SUM2]} shares of masks' sums, and the means. [bold]It did not see[/bold] any"
            f" participant's samples or model.\n[bold]That holds[/bold] for any coordinator, whatever it does, {helpers}."
        )


def _times(seconds: tuple[float, float]) -> PhaseTimes:
    return PhaseTimes(min_seconds=seconds[0], max_seconds=int(seconds[1]))


class _Cheat(DemoParticipant):
    """A participant that sends a bad box once, in the place of its update."""

    def __init__(
        self,
        index: int,
        participant: TickParticipant,
        samples: demo_data.Samples,
        ledger: Ledger,
        *,
        url: str,
        key: SigningKeyPair,
        cheats_in: int,
        on_sent: Callable[[], None],
    ) -> None:
        super().__init__(index, participant, samples, ledger)
        self._url, self._key, self._cheats_in, self._on_sent = url, key, cheats_in, on_sent
        self._has_cheated = False

    def train(self) -> None:
        """Train, and send an honest update in every round but one."""
        if self.rounds_seen < self._cheats_in or (self._has_cheated and self.rounds_seen > self._cheats_in):
            super().train()
        elif not self._has_cheated:
            transport = HttpTransport(self._url)
            try:
                self._has_cheated = send_bad_box(transport, self._key, demo_data.initial_weights(), _VICTIM)
            finally:
                transport.close()
            if self._has_cheated:
                self._on_sent()


class _MemberThread(threading.Thread):
    """A member that takes part until it is stopped, or vanishes."""

    def __init__(
        self,
        url: str,
        name: str,
        key: SigningKeyPair,
        enrolment: Enrolment,
        state_file: Path,
        on_misfortune: Callable[[Misfortune], None],
    ) -> None:
        super().__init__(name=f"pet-demo-member-{name}", daemon=True)
        self._member: Final = CommitteeMember(url, key, enrolment, state_file=state_file, new=True, threads=1)
        self._on_misfortune: Final = on_misfortune
        self._is_stopping: Final = threading.Event()
        self._label: Final = name
        self._checks_sent = 0
        #: The round after whose Check it vanishes, counted from 1; None for one that stays.
        self.vanishes_in: int | None = None

    def run(self) -> None:
        """Tick, and ask again a little later."""
        with self._member as member:
            while not self._is_stopping.wait(0 if member.made_progress else POLL_SECONDS):
                news = member.tick()
                self._checks_sent += any(isinstance(each, MemberSent) and each.tag is Pet1Tag.CHECK for each in news)
                if self.vanishes_in is not None and self._checks_sent >= self.vanishes_in:
                    text = f"member {self._label} signs the list of updates, and vanishes before it answers"
                    self._on_misfortune(Misfortune(None, f"{self._label}\nvanishes", text))
                    return

    def stop(self) -> None:
        """End the thread after its current step."""
        self._is_stopping.set()
        self.join()
