"""What peers bring to a round of pet/1 and take from it, without the round: offers are added up as its masks let them."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
from peer_driver import SCHEMA, pooled, some_rows

from pet import Aggregation, mask_model, sum_masks
from pet.errors import FederationStateError, FederationValueError, RemoteProtocolError
from pet.federation.formats.encoding import encode_base64
from pet.federation.formats.model_shape import ModelShape
from pet.federation.peer.clock import SystemClock
from pet.federation.peer.context import PeerContext
from pet.federation.peer.projects import PeerProjects
from pet.federation.records import FederationRecord, FederationTerms, PeerKeys, ProjectKind, ScheduleRecord
from pet.federation.server.store import FederationStore
from pet.federation.statistics.analysis import covariance
from pet.federation.statistics.statistics import Statistics
from pet.secret import Secret
from pet.transports.nats import NatsSettings, generate_federation_id


@pytest.fixture
def peers():
    """Make the projects of three members of a federation, under changed terms."""
    stores = []

    def make(**changes):
        keys = [PeerKeys.generate() for _ in range(3)]
        terms = FederationTerms(
            federation_id=generate_federation_id(),
            name="tests",
            secret_key=Secret(encode_base64(os.urandom(16))),
            admin=keys[0].identity("a"),
            schedule=ScheduleRecord(text="d1"),
            schema=SCHEMA.to_json(),
        )
        members = tuple(key.identity(name) for key, name in zip(keys, "abc", strict=True))
        for place, key in enumerate(keys):
            record = FederationRecord(
                customer_id="c1",
                project_id="p",
                terms=replace(terms, **changes),
                keys=key,
                nats=NatsSettings(hosts=("nats://127.0.0.1:1",)),
                is_admin=place == 0,
                peers=members,
            )
            stores.append(FederationStore(None))
            yield PeerProjects(PeerContext(record, stores[-1].add(record, persist=True), SystemClock()), lambda _schema: None)

    yield lambda **changes: list(make(**changes))
    for store in stores:
        store.close()


def round_of(projects):
    """Return the offers' vectors for a round of all, as they are masked."""
    return [one.contributor.offer().for_round(len(projects)) for one in projects]


def test_statistics_are_added_up_exactly_and_taken_by_all(peers):
    projects = peers()
    parts = [some_rows(count, seed) for seed, count in enumerate((40, 300, 12))]
    for one, part in zip(projects, parts, strict=True):
        one.local.learn(part)
    vectors = round_of(projects)
    contributor = projects[0].contributor
    assert {len(vector.numbers) for vector in vectors} == {contributor.element_count}
    assert [vector.scalar for vector in vectors] == [1, 1, 1]
    assert max(int(vector.numbers.max()) for vector in vectors) <= contributor.round_config(3).levels
    merged = contributor.from_totals(sum(vector.numbers for vector in vectors), 3)
    data = contributor.encode(merged)
    assert len(data) <= 8 * contributor.element_count + 1024
    for one in projects:
        taken = one.contributor.decode(data, 3)
        assert one.contributor.take(taken, 1, dict.fromkeys("abc", 1), "a")
        found = one.federated.snapshot()
        assert (found.rows, found.masked_peers, found.decimal_peers) == (352, 3, 0)
        np.testing.assert_array_equal(found.halves, merged.halves)
    expected = Statistics.of(pooled(*parts), SCHEMA)
    np.testing.assert_allclose(covariance(merged), covariance(expected), rtol=1e-12)


def test_an_aggregate_that_no_such_round_has_is_refused(peers):
    projects = peers()
    for seed, one in enumerate(projects):
        one.local.learn(some_rows(40, seed))
    contributor = projects[0].contributor
    merged = contributor.from_totals(sum(vector.numbers for vector in round_of(projects)), 3)
    single, old, forgetful, many = projects[0].local.snapshot(), merged.copy(), merged.copy(), merged.copy()
    old.masked_peers, old.decimal_peers, forgetful.forgotten_rows, many.rows = 0, 3, 1, 3 * 10**7 + 1
    for wrong in (single, old, forgetful, merged + merged):
        with pytest.raises(RemoteProtocolError, match="those of a round of 3 peers, got others"):
            contributor.decode(contributor.encode(wrong), 3)
    with pytest.raises(RemoteProtocolError, match="3 to 30000000 rows of 3 peers, got 30000001"):
        contributor.decode(contributor.encode(many), 3)
    with pytest.raises(RemoteProtocolError, match="those of a round of 4 peers"):
        contributor.decode(contributor.encode(merged), 4)


def test_an_offer_is_of_the_rows_when_it_was_made(peers):
    projects = peers()
    projects[0].local.learn(some_rows(40, 1))
    offer = projects[0].contributor.offer()
    before = offer.for_round(3)
    projects[0].local.learn(some_rows(40, 2))
    np.testing.assert_array_equal(offer.for_round(3).numbers, before.numbers)
    assert before.numbers[0] == 40


@pytest.mark.parametrize(("bounds", "error"), [({}, 1.4e-5), ({"bound": 8, "max_weight": 3}, 4e-14)])
def test_models_are_averaged_by_weight_within_the_stated_error(peers, bounds, error):
    projects = peers(kind=ProjectKind.MODEL, schema=json.dumps({"length": 5, **bounds}))
    models = [np.array([0.0, 1.0, -2.5, 1e-3, 8.0]) / weight for weight in (1, 2, 3)]
    for weight, (one, model) in enumerate(zip(projects, models, strict=True), 1):
        one.model.set_model(model, weight)
    contributor = projects[0].contributor
    config = contributor.round_config(3)
    total, seeds = Aggregation(config, contributor.element_count), []
    for vector in round_of(projects):
        seed, masked = mask_model(vector.numbers, config, vector.scalar, on_clip="raise")
        total.add(masked)
        seeds.append(seed)
    model = total.unmask(sum_masks(seeds, config, contributor.element_count))
    means = contributor.from_totals(model.to_array(), 3)
    np.testing.assert_allclose(means, np.average(models, axis=0, weights=[1, 2, 3]), rtol=0, atol=error)
    # docs/statistics.md, "Models"
    bound, most, weights = bounds.get("bound", 1e4), bounds.get("max_weight", 1e6), 6
    assert error >= 3 / 2**52 * (6 * bound + 3 * 8) / (weights / most)


def test_an_average_that_models_cannot_have_is_refused(peers):
    contributor = peers(kind=ProjectKind.MODEL, schema=json.dumps({"length": 3, "bound": 2}))[0].contributor
    assert str(contributor.round_config(3)) == "pet-1/z64,f64,bound=2,models=6"
    means = np.array([2.0, -2.0, 0.0])
    np.testing.assert_array_equal(contributor.from_totals(means, 3), means)
    for wrong in (means[1:], means.astype(np.float32), means * np.nan, means * 3):
        with pytest.raises(FederationStateError, match="average: expected"):
            contributor.from_totals(wrong, 3)
    for data in (bytes(23), contributor.encode(np.full(3, np.inf)), contributor.encode(means * 3)):
        with pytest.raises(RemoteProtocolError, match="expected"):
            contributor.decode(data, 3)
    np.testing.assert_array_equal(contributor.decode(contributor.encode(means), 3), means)
    with pytest.raises(FederationStateError, match="expected 1 to 1000, got 1001"):
        contributor.round_config(1001)


def test_what_models_agree_in_is_in_their_digest():
    texts = ['{"length":5}', '{"length":6}', '{"bound":2.0,"length":5}', '{"length":5,"max_weight":2.0}']
    assert [ModelShape.from_json(text).to_json() for text in texts] == texts
    assert len({ModelShape.from_json(text).digest for text in texts}) == 4
    assert ModelShape.from_json('{"length":5,"bound":10000}') == ModelShape(5)
    wrong = [None, "", "[]", "{}", '{"length":0}', '{"length":1.5}', '{"length":true}', '{"length":5,"more":1}']
    bounds = ['"bound":0', '"bound":1e5', '"max_weight":"1"', '"max_weight":1e7']
    for text in [*wrong, *(f'{{"length":5,{bound}}}' for bound in bounds)]:
        with pytest.raises(FederationValueError, match="expected"):
            ModelShape.from_json(text)
