"""What the threat model of docs/security.md says that an adversary learns, played; and that each test it names exists.

The attacks that fail have tests of their own, which the table names. Here are mostly those that succeed: a protection that ends
somewhere is described there, and these tests hold the description to what is so.
"""

import ast
import functools
import re
from pathlib import Path

import numpy as np
import pytest

import pet
from pet.crypto import EncryptionKeyPair, open_sealed, seal
from pet.federation.peer.local_project import LocalProject
from pet.federation.records import PeerKeys
from pet.federation.server.request_maps import MapContext, created_record
from pet.federation.server.store import FederationStore
from pet.federation.statistics.feature import Feature
from pet.federation.statistics.schema import Schema

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "security.md").read_text(encoding="utf-8")
CONFIG = pet.MaskConfig.parse("prime-f64-b0-m3")
ADVERSARIES = [
    *("network", "broker", "coordinator", "admin", "member", "sum peer", "update participant", "thief of a disk"),
]
ASSETS = ["one's numbers", "result", "keys and credentials", "service"]


class Round:
    """Three models, masked as participants send them, with the seeds sealed for one sum participant."""

    def __init__(self):
        self.models = [np.random.default_rng(seed).uniform(-1, 1, 64) for seed in range(3)]
        self.sum_participant = EncryptionKeyPair.generate()
        masked = [pet.mask_model(model, CONFIG, 1) for model in self.models]
        self.masked_models = [model for _, model in masked]
        self.sealed_seeds = [seal(seed.to_bytes(), self.sum_participant.public_key) for seed, _ in masked]

    def opened(self, keys):
        return [pet.MaskSeed(open_sealed(seed, keys)) for seed in self.sealed_seeds]


def unmasked(masked_models, seeds):
    total = pet.Aggregation(CONFIG, 64)
    for one in masked_models:
        total.add(one)
    return total.unmask(pet.sum_masks(seeds, CONFIG, 64)).to_array()


def test_a_coordinator_alone_sees_numbers_that_any_model_could_have_given():
    """Two masked versions of one model have nothing in common, and seeds do not open for another key."""
    model = np.full(64, 0.25)
    shown = [np.frombuffer(pet.mask_model(model, CONFIG, 1)[1].to_bytes(), np.uint8) for _ in range(2)]
    assert (shown[0] != shown[1]).mean() > 0.9
    closed = EncryptionKeyPair.generate()
    with pytest.raises(pet.PetError):
        Round().opened(closed)


def test_a_coordinator_with_one_sum_participant_reads_every_model():
    """Each sum participant has all seeds: that is what two of them mean, one who may vanish and two who could collude."""
    played = Round()
    seeds = played.opened(played.sum_participant)
    for model, masked_model, seed in zip(played.models, played.masked_models, seeds, strict=True):
        np.testing.assert_allclose(unmasked([masked_model], [seed]), model, atol=1e-9)


def test_all_others_together_read_the_last_one_from_the_mean():
    played = Round()
    mean = unmasked(played.masked_models, played.opened(played.sum_participant))
    np.testing.assert_allclose(3 * mean - played.models[0] - played.models[1], played.models[2], atol=1e-9)


def test_one_participant_shifts_the_mean_within_the_bound_and_no_further():
    honest = [np.zeros(64)] * 2
    masked = [pet.mask_model(model, CONFIG, 1) for model in [*honest, np.full(64, 1e6)]]
    assert masked[-1][1].clipped_count == 64
    mean = unmasked([model for _, model in masked], [seed for seed, _ in masked])
    np.testing.assert_allclose(mean, np.full(64, 1 / 3), atol=1e-9)


def test_a_stolen_state_folder_has_keys_and_sums_and_no_rows(tmp_path):
    """What the folder of a federation server says to who can read it: secret keys in clear, statistics, and not one row."""
    schema = Schema((Feature(name="x", scale=4), Feature(name="y", scale=4)))
    entries = {"fed_name": "f", "sync_sched": "h1", "nats_hosts": "nats://127.0.0.1:4222", "fed_schema": schema.to_json()}
    record = created_record(entries, MapContext(customer_id="c", project_id="p"))
    store = FederationStore(tmp_path)
    storage = store.add(record, persist=True)
    storage.confirm()
    rows = np.random.default_rng(1).normal(0, 1, (30, 2))
    LocalProject(storage, schema).learn({"x": rows[:, 0], "y": rows[:, 1]})
    store.close()

    ((stolen, storage),) = (again := FederationStore(tmp_path)).peers()
    assert stolen.keys.signing.secret_key == record.keys.signing.secret_key
    assert LocalProject(storage, schema).snapshot().rows == 30
    again.close()
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert not [value for value in rows.ravel() if value.tobytes() in content or repr(float(value)).encode() in content]
    assert PeerKeys.generate().signing.secret_key not in content


# ---- the page


def table():
    """Return the rows of the threat model: adversary, asset, what is learned, what plays it."""
    section = PAGE.partition("## Threat model")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:] if not line.startswith("|--")]


@functools.cache
def functions_of(path):
    return {node.name for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.FunctionDef)}


def test_each_cell_of_the_threat_model_names_a_test_that_exists():
    rows = table()
    assert [(adversary, asset) for adversary, asset, _, _ in rows] == [(one, what) for one in ADVERSARIES for what in ASSETS]
    for adversary, asset, learned, played in rows:
        assert len(learned) > 10, f"{adversary}, {asset}: says nothing"
        named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", played)
        assert named, f"{adversary}, {asset}: names no test"
        for file, test in named:
            path = TESTS / file
            assert path.is_file(), f"{adversary}, {asset}: there is no {file}"
            assert test in functions_of(path), f"{adversary}, {asset}: {file} has no {test}"
