"""Settings of rounds of pet/1: what they mean, what contradicts them, and a coordinator that is started from them.

Source: docs/spec/profile.md 15.4.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from documents import blocks
from pet1_parties import Parties, with_more
from pet1_players import Players, read
from starlette.applications import Starlette

from pet.commands.settings_report import meaning, restored_lines
from pet.coordinator.app import create_app
from pet.coordinator.engine import CoordinatorEngine
from pet.coordinator.pet1_engine import Pet1Engine
from pet.coordinator.pet1_settings import read_served_enrolment, to_pet1_settings
from pet.coordinator.settings import LoadedSettings, Settings, load_settings_with_origins
from pet.coordinator.stores import Stores
from pet.coordinator.surroundings import find_file_faults
from pet.errors import SettingsError
from pet.pet1.round_record import RoundRecord
from pet.transports.pet1 import Pet1Document

PARTIES = Parties()
#: In rounds that end as soon as everybody has sent.
AT_ONCE = """
[pet.sum.time]
min = 0
[pet.update.time]
min = 0
[pet.update.count]
min = 4
max = 4
[pet.check.time]
min = 0
[pet.sum2]
spare = 0
[pet.sum2.time]
min = 0
[model]
length = 3
"""
PROFILE = '[pet.profile]\nname = "pet/1"\ndata_type = "int"\nmax_updates = 15\n'


def load(folder: Path, text: str, enrolment: bytes | None = None) -> LoadedSettings:
    """Load a settings file; "ENROLMENT" in it is the path of an enrolment."""
    path = folder / "trial.enrolment"
    path.write_bytes(PARTIES.enrolment.sign(PARTIES.authority) if enrolment is None else enrolment)
    (folder / "config.toml").write_text(text.replace("ENROLMENT", f'enrolment = "{path}"'))
    return load_settings_with_origins(folder / "config.toml", {}, find_more=find_file_faults)


def test_settings_of_a_round(tmp_path: Path) -> None:
    loaded = load(tmp_path, f"{PROFILE}ENROLMENT\nupdate_share = 0.5\npieces_in_flight = 3\nevidence_rounds = 2\n{AT_ONCE}")
    rounds = to_pet1_settings(loaded.settings)
    assert str(rounds.config) == "pet-1/z32,int,models=15"
    assert rounds.enrolment == PARTIES.enrolment
    assert (rounds.model_length, rounds.min_updates, rounds.min_count, rounds.max_count) == (3, 3, 4, 4)
    assert (rounds.answer_spare, rounds.committee_spare, rounds.pieces_in_flight, rounds.evidence_rounds) == (0, 1, 3, 2)
    assert rounds.update_share == 2**31
    assert [rounds.check.max_seconds, rounds.sum2.max_seconds, rounds.sum2.min_seconds] == [600, 3600, 0]
    assert loaded.warnings == []


def test_defaults(tmp_path: Path) -> None:
    rounds = to_pet1_settings(load(tmp_path, '[pet.profile]\nname = "PET/1"\nENROLMENT\n').settings)
    assert str(rounds.config) == "pet-1/z32,f32,bound=1,models=1000"
    assert (rounds.update_share, rounds.answer_spare, rounds.committee_spare) == (2**32 - 1, 1, 1)
    assert (rounds.pieces_in_flight, rounds.evidence_rounds) == (8, 20)


def test_the_settings_in_the_documentation(tmp_path: Path) -> None:
    (snippet,) = [block for block in blocks("docs/committees.md") if block.language == "toml"]
    more = Parties(participant_count=10)
    shown = snippet.code.replace('enrolment = "trial.enrolment"', "ENROLMENT")
    loaded = load(tmp_path, shown, more.enrolment.sign(more.authority))
    assert to_pet1_settings(loaded.settings).model_length == 1_000_000
    assert loaded.warnings == []


def test_what_rounds_of_pet1_do_not_use_is_said(tmp_path: Path) -> None:
    loaded = load(tmp_path, f'{PROFILE}ENROLMENT\n[mask]\nmodel_type = "M6"\n[pet.sum]\nprob = 0.3\n')
    assert loaded.warnings == ["pet.sum.prob: not used in rounds of pet/1", "mask.model_type: not used in rounds of pet/1"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (PROFILE, r"pet\.profile\.enrolment: expected an enrolment beside pet\.profile\.name = \"pet/1\", got nothing"),
        (
            "[pet.profile]\nENROLMENT\n",
            r"pet\.profile\.enrolment: .*beside xaynet's profile, where anybody may take part",
        ),
        ('[pet.profile]\nname = "pet/2"\n', r"pet\.profile\.name: expected one of xaynet, pet/1, got 'pet/2'"),
        (f"{PROFILE}ENROLMENT\nbound = 2\n", r"pet\.profile\.bound: expected 1 with integers, got 2"),
        (f"{PROFILE}ENROLMENT\nbound = 1e40\n", r"pet\.profile\.bound: expected a number from 2\^-100 to 2\^100"),
        (f"{PROFILE}ENROLMENT\nupdate_share = 0\n", r"pet\.profile\.update_share: expected a number above 0"),
        (
            f"{PROFILE}ENROLMENT\n[pet.update.count]\nmin = 16\n",
            r"pet\.update\.count\.min: expected at most pet\.profile\.max",
        ),
        (
            f"{PROFILE}ENROLMENT\n[pet.update.count]\nmin = 7\n",
            r"pet\.update\.count\.min: expected at most 6, the",
        ),
        (f"{PROFILE}ENROLMENT\n[pet.check.time]\nmax = 1.5\nmin = 0\n", r"pet\.check\.time\.max: expected whole seconds"),
        (
            f"{PROFILE}ENROLMENT\n[pet.check.time]\nmin = 9\nmax = 8\n",
            r"pet\.check\.time\.max: expected at least pet\.check",
        ),
        (
            f'{PROFILE}ENROLMENT\n[service]\nallowed_participants = "/dev/null"\n',
            r"service\.allowed_participants: expected none beside .*the enrolment says who may take part",
        ),
        (f'{PROFILE}enrolment = "/nowhere"\n', r"pet\.profile\.enrolment: expected a readable file, got '/nowhere'"),
    ],
)
def test_contradictions_are_errors_by_name(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(SettingsError, match=fault):
        load(tmp_path, text)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"expires": 1}, r"pet\.profile\.enrolment: expected an enrolment that is in force"),
        ({"min_updates": 6}, r"pet\.profile\.max_updates: expected at least 6, the least that the enrolment allows"),
    ],
)
def test_what_the_enrolment_contradicts(tmp_path: Path, changes: dict[str, Any], fault: str) -> None:
    enrolment = with_more(PARTIES.enrolment, **changes).sign(PARTIES.authority)
    profile = PROFILE.replace("max_updates = 15", "max_updates = 5")
    with pytest.raises(SettingsError, match=fault):
        load(tmp_path, f"{profile}ENROLMENT\n", enrolment)


def test_a_file_that_is_no_enrolment(tmp_path: Path) -> None:
    whole = PARTIES.enrolment.sign(PARTIES.authority)
    for data in (whole[:-1], b"version = ", b"\xff"):
        with pytest.raises(SettingsError, match=r"pet\.profile\.enrolment: .*trial\.enrolment: "):
            load(tmp_path, f"{PROFILE}ENROLMENT\n", data)


def test_an_enrolment_as_people_write_it_is_served_without_a_signature(tmp_path: Path) -> None:
    members = "".join(f'[[members]]\nkey = "{key.public_key.hex()}"\n' for key in PARTIES.member_keys)
    participants = "".join(f'[[participants]]\nkey = "{key.public_key.hex()}"\n' for key in PARTIES.participant_keys)
    plan = "[plan]\nmembers = 3\nthreshold = 2\nquorum = 3\n"
    path = tmp_path / "trial.toml"
    path.write_text(f"version = 1\nleast_updates = 3\n{plan}{members}{participants}")
    assert read_served_enrolment(path) == PARTIES.enrolment.to_bytes() + bytes(64)


def run(app: Starlette, play: Any) -> None:
    """Run an application as long as something takes."""

    async def serve() -> None:
        async with app.router.lifespan_context(app):
            await asyncio.to_thread(play, app.state.service.engine)

    asyncio.run(serve())


def test_a_coordinator_from_settings_keeps_all_in_its_folder_and_goes_on(tmp_path: Path) -> None:
    players = Players(PARTIES)
    settings = load(tmp_path, f"{PROFILE}ENROLMENT\n{AT_ONCE}").settings
    assert any("who must collude" in line or "single update" in line for line in meaning(settings))
    state, begin = tmp_path / "pet-state", int(time.time())

    def play_to_update(engine: Pet1Engine) -> None:
        assert restored_lines(engine) == ["Nothing is stored: rounds are counted from the time in seconds on."]
        players.send_members(engine)
        players.send_updates(engine, 2)

    def play_on(engine: Pet1Engine) -> None:
        assert "Going on with round" in restored_lines(engine)[0]
        players.play(engine)
        number = RoundRecord.from_bytes(read(engine, Pet1Document.ROUND) or b"").number - 1
        assert number >= begin
        totals = read(engine, Pet1Document.MODEL)
        assert totals == b"".join(total.to_bytes(4, "little") for total in players.sum_of(number))

    for play in (play_to_update, play_on):
        with closing(Stores.open(settings, state)) as stores:
            app = create_app(settings, stores)
            assert isinstance(app.state.service.engine, Pet1Engine)
            run(app, play)
    assert {path.name for path in state.iterdir()} >= {"coordinator.sqlite", "evidence", "leaves", "models"}
    xaynet = Settings()
    with closing(Stores.open(xaynet, state)) as stores:  # in its Sum phase a round may be followed by one of the other profile
        engine = create_app(xaynet, stores).state.service.engine
        assert isinstance(engine, CoordinatorEngine)
        assert engine.was_restored
