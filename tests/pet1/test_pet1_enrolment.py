"""Enrolments of pet/1: as people write them, and what a peer asks of one before it takes it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pet1_rounds import reason_of, vector_round

import pet
from pet.crypto import SigningKeyPair
from pet.errors import ConfigError, SettingsError
from pet.pet1.enrolment import Enrolment, EnrolmentPolicy, SeenEnrolment, split_signed
from pet.pet1.enrolment_file import add_entry, new_draft, parse_enrolment
from pet.pet1.round_record import RoundRecord

KEYS = [SigningKeyPair.from_seed(bytes([number]) * 32).public_key for number in range(1, 7)]
AUTHORITY = SigningKeyPair.from_seed(bytes(32))
ENROLMENT = Enrolment(
    version=7,
    expires=1000,
    plan=pet.Plan(groups=1, members=3, threshold=2, quorum=3),
    min_updates=3,
    members=tuple(KEYS[:3]),
    participants=tuple(sorted([KEYS[0], *KEYS[3:]])),
)
SERVED = ENROLMENT.sign(AUTHORITY)
POLICY = EnrolmentPolicy(authority=AUTHORITY.public_key)

TEXT = f"""
version = 7
expires = 1970-01-01T00:16:40Z
least_updates = 3

[plan]
members = 3
threshold = 2
quorum = 3

[[members]]
name = "North"
key = "{KEYS[0].hex()}"
participates = true

[[members]]
name = "South"
key = "{KEYS[1].hex()}"

[[members]]
key = "{KEYS[2].hex()}"
{"".join(f"[[participants]]{chr(10)}key = '{key.hex()}'{chr(10)}" for key in KEYS[3:])}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "enrolment.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_an_enrolment_as_people_write_it(tmp_path: Path) -> None:
    enrolment = Enrolment.from_toml(written(tmp_path, TEXT))
    assert enrolment == ENROLMENT
    assert enrolment.names == {KEYS[0]: "North", KEYS[1]: "South"}
    assert Enrolment.from_toml(str(written(tmp_path, TEXT.replace("1970-01-01T00:16:40Z", "1000")))) == ENROLMENT
    assert Enrolment.from_toml(written(tmp_path, TEXT.replace("expires", "#"))).expires == 0
    # All or nothing, where nothing else is said.
    assert Enrolment.from_toml(written(tmp_path, TEXT.replace("least_updates", "#"))).min_updates == 4


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("version = 7", "", "version: expected a whole number, got None"),
        ("version = 7", "version = true", "version: expected a whole number, got True"),
        ("version = 7", "version = -1", "version: expected a whole number from 0"),
        ("version = 7", "version = 7\nversoin = 8", "versoin: expected one of expires, least_updates, members, part"),
        ("version = 7", "version =", "expected TOML"),
        ("1970-01-01T00:16:40Z", "1970-01-01T00:16:40", "expires: expected Unix seconds, or a time with its offset"),
        ("1970-01-01T00:16:40Z", "'soon'", "expires: expected Unix seconds, or a time with its offset"),
        ("least_updates = 3", "least_updates = 5", "least_updates: expected 3 to the number of participants, 4, got 5"),
        ("[plan]", "[plan]\ngroup = 1", "plan.group: expected one of groups, members, quorum, threshold"),
        ("threshold = 2", "threshold = 4", "plan: expected 1 or more groups"),
        ("quorum = 3", "", "plan.quorum: expected a whole number, got None"),
        ("[plan]", "[[plan]]", r"plan: expected a table \[plan\], got list"),
        (KEYS[1].hex(), KEYS[0].hex(), "members: expected 3 different keys, got 3, 2 of them different"),
        (KEYS[3].hex(), KEYS[0].hex(), "participants: expected each key once, got one twice"),
        (KEYS[1].hex(), "1234", r"members\[1\].key: expected a public key of 32 bytes in hexadecimal or base64, got '1234'"),
        ('"North"', "1", r"members\[0\].name: expected text, got 1"),
        ("= true", "= 1", r"members\[0\].participates: expected true or false, got 1"),
        ("[[participants]]", "[[participants]]\nparticipates = true", r"participants\[0\].participates: expected one of key"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = TEXT.replace(old, new, 1)
    assert text != TEXT
    with pytest.raises(SettingsError, match=message) as caught:
        Enrolment.from_toml(written(tmp_path, text))
    assert "enrolment.toml" in str(caught.value)


def test_files_that_are_no_enrolment(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="expected an enrolment"):
        Enrolment.from_toml(tmp_path / "absent.toml")
    with pytest.raises(SettingsError, match=r"members: expected tables \[\[members\]\]"):
        Enrolment.from_toml(written(tmp_path, "members = 3\nversion = 1\n[plan]\nmembers = 3\nthreshold = 2\nquorum = 3\n"))
    (tmp_path / "enrolment.toml").write_bytes(b"\xff")
    with pytest.raises(SettingsError, match="expected an enrolment"):
        Enrolment.from_toml(tmp_path / "enrolment.toml")


def test_who_must_collude_is_said_to_people(tmp_path: Path) -> None:
    enrolment = Enrolment.from_toml(written(tmp_path, TEXT))
    assert enrolment.describe() == (
        f"A single update can be read by any 2 of North, South, {KEYS[2].hex()[:8]}, together with the coordinator; "
        "the same if it cheats.\nA sum has at least 3 of 4 participants."
    )
    assert "it can invent members and participants" in enrolment.describe(is_run_by_authority=True)
    weaker = replace(enrolment, plan=pet.Plan(groups=1, members=3, threshold=3, quorum=2))
    assert "any 3 of North, South" in weaker.describe()
    assert "1 of them if it cheats" in weaker.describe()
    grouped = replace(enrolment, plan=pet.Plan(groups=3, members=1, threshold=1, quorum=2))
    assert "any 1 of each of North; South; " in grouped.describe()
    assert "1 of all members if it cheats" in grouped.describe()


def test_what_is_accepted() -> None:
    unsigned = ENROLMENT.to_bytes() + bytes(64)
    assert POLICY.accept(SERVED, now=1000) == ENROLMENT
    assert EnrolmentPolicy(digest=ENROLMENT.digest).accept(unsigned, now=0) == ENROLMENT
    assert POLICY.accept(SERVED, now=0, seen=SeenEnrolment(6, bytes(32))) == ENROLMENT
    assert POLICY.accept(SERVED, now=0, seen=SeenEnrolment(7, ENROLMENT.digest)) == ENROLMENT
    endless = replace(ENROLMENT, expires=0)
    assert POLICY.accept(endless.sign(AUTHORITY), now=2**60) == endless
    assert split_signed(SERVED) == (ENROLMENT, SERVED[-64:])
    assert ENROLMENT.lists_participant(KEYS[0])
    assert not ENROLMENT.lists_participant(KEYS[1])
    assert not ENROLMENT.lists_participant(b"\xff" * 32)


@pytest.mark.parametrize(
    ("policy", "data", "now", "seen", "reason"),
    [
        (POLICY, ENROLMENT.to_bytes() + bytes(64), 0, None, "unknown_enrolment"),
        (POLICY, SERVED[:-64] + replace(ENROLMENT, version=8).sign(AUTHORITY)[-64:], 0, None, "unknown_enrolment"),
        (EnrolmentPolicy(digest=bytes(32)), SERVED, 0, None, "unknown_enrolment"),
        (POLICY, SERVED, 1001, None, "enrolment_expired"),
        (POLICY, SERVED, 0, SeenEnrolment(8, ENROLMENT.digest), "enrolment_rolled_back"),
        (POLICY, SERVED, 0, SeenEnrolment(7, bytes(32)), "enrolment_rolled_back"),
        (replace(POLICY, least_passive=2), SERVED, 0, None, "weak_plan"),
        (replace(POLICY, least_active=2), SERVED, 0, None, "weak_plan"),
        (replace(POLICY, least_updates=4), SERVED, 0, None, "too_few_updates"),
        (POLICY, SERVED[:40], 0, None, "malformed_enrolment"),
    ],
    ids=["zeros", "signature", "digest", "expired", "older", "changed", "passive", "active", "updates", "short"],
)
def test_what_is_refused(policy: EnrolmentPolicy, data: bytes, now: int, seen: SeenEnrolment | None, reason: str) -> None:
    assert reason_of(policy.accept, data, now=now, seen=seen) == reason


def test_values_that_cannot_be() -> None:
    for changes in ({"version": -1}, {"expires": 2**64}, {"min_updates": 2}, {"members": (KEYS[0][:31], *KEYS[1:3])}):
        with pytest.raises(ConfigError):
            replace(ENROLMENT, **changes)
    for options in ({}, {"digest": bytes(31)}, {"authority": b""}):
        with pytest.raises(ConfigError, match="expected a digest or the key of an authority"):
            EnrolmentPolicy(**options)
    record: RoundRecord = vector_round("1of1").record
    for changes in ({"model_length": 0}, {"number": 1.5}, {"min_updates": 101}, {"seed": b""}, {"update_share": 2**32}):
        with pytest.raises(ConfigError):
            replace(record, **changes)


def test_a_plan_with_too_many_parts_is_refused_by_its_name() -> None:
    data = bytearray(ENROLMENT.to_bytes())
    data[32:36] = bytes([1, 20, 11, 20])
    assert reason_of(Enrolment.from_bytes, bytes(data)) == "too_many_parts"


def test_the_draw_of_participants_is_fair() -> None:
    record: RoundRecord = vector_round("1of1").record
    assert record.selects(KEYS[0])
    half = replace(record, update_share=2**31)
    assert 40 < sum(half.selects(number.to_bytes(32, "big")) for number in range(100)) < 60
    assert not any(replace(record, update_share=0).selects(key) for key in KEYS)


def test_entries_are_added_to_a_file_that_people_edit() -> None:
    draft = new_draft(groups=1, members=1, threshold=1, quorum=1, least_updates=3)
    assert "least_updates = 3\n" in draft
    keys = [bytes([number]) * 32 for number in range(1, 5)]
    text = add_entry(
        "# ours\n" + draft, keys[0], 'Élan "1" \N{SNOWMAN}\N{GRINNING FACE}', is_member=True, does_participate=True
    )
    for key in keys[1:3]:
        text = add_entry(text, key, "", is_member=False, does_participate=True)
    fields = parse_enrolment(text)
    assert text.startswith("# ours\nversion = 4\n")
    assert (fields["members"], fields["participants"]) == ((keys[0],), tuple(keys[:3]))
    assert fields["names"] == {keys[0]: 'Élan "1" \N{SNOWMAN}\N{GRINNING FACE}'}
    member = new_draft(groups=1, members=1, threshold=1, quorum=1, least_updates=None)
    assert "participates" not in add_entry(member, keys[0], "", is_member=True, does_participate=False)
    for changed, key, is_member, message in (
        (text, keys[0], False, "one that is not in the file"),
        (text, keys[3], True, "expected 1 of them, got one more"),
        (text.replace("version = 4", '"version" = 4'), keys[3], False, "expected a line 'version = '"),
        (
            text.replace("version = 4", " version = 4") + 'name = """\nversion = 9\n"""\n',
            keys[3],
            False,
            "outside of all tables",
        ),
    ):
        with pytest.raises(SettingsError, match=message):
            add_entry(changed, key, "", is_member=is_member, does_participate=True)
