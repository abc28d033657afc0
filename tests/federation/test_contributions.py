"""What peers bring to a round of pet/1 and take from it, without the round: offers are added up as its masks let them."""

import json
import os
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from peer_driver import SCHEMA, pooled, some_rows

from pet.errors import FederationStateError
from pet.federation.formats.encoding import encode_base64
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
        taken = one.contributor.decode(data)
        assert one.contributor.take(taken, 1, dict.fromkeys("abc", 1), "a")
        found = one.federated.snapshot()
        assert (found.rows, found.masked_peers, found.decimal_peers) == (352, 3, 0)
        np.testing.assert_array_equal(found.halves, merged.halves)
    expected = Statistics.of(pooled(*parts), SCHEMA)
    np.testing.assert_allclose(covariance(merged), covariance(expected), rtol=1e-12)


def test_an_offer_is_of_the_rows_when_it_was_made(peers):
    projects = peers()
    projects[0].local.learn(some_rows(40, 1))
    offer = projects[0].contributor.offer()
    before = offer.for_round(3)
    projects[0].local.learn(some_rows(40, 2))
    np.testing.assert_array_equal(offer.for_round(3).numbers, before.numbers)
    assert before.numbers[0] == 40


def test_models_are_weighted(peers):
    projects = peers(kind=ProjectKind.MODEL, schema=json.dumps({"length": 5}))
    for weight, one in enumerate(projects, 1):
        one.model.set_model(np.arange(5.0) * weight, weight)
    vectors = round_of(projects)
    contributor = projects[0].contributor
    assert str(contributor.round_config(3)) == "pet-1/z64,f64,bound=10000,models=6"
    assert [vector.scalar for vector in vectors] == [Fraction(weight, 10**6) for weight in (1, 2, 3)]
    assert {len(vector.numbers) for vector in vectors} == {contributor.element_count} == {5}
    means = np.average([vector.numbers for vector in vectors], axis=0, weights=[float(v.scalar) for v in vectors])
    np.testing.assert_array_equal(contributor.from_totals(means, 3), means)
    for wrong in (means[1:], means.astype(np.float32), means * np.nan, means + 1e5):
        with pytest.raises(FederationStateError, match="average: expected"):
            contributor.from_totals(wrong, 3)
    with pytest.raises(FederationStateError, match="expected 1 to 1000, got 1001"):
        contributor.round_config(1001)
