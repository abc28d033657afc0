"""A coordinator that signs, over real HTTP, through every answer of one round; and what signing a model costs."""

import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import numpy as np
import pytest
from asgi_server import serving, wait_until
from hostile_coordinators import ManInTheMiddle
from sealed_rounds import WEIGHTS, SealedRound

from pet.coordinator.app import create_app
from pet.coordinator.key_file import create_key_file, read_key_file
from pet.coordinator.settings import Settings
from pet.errors import CoordinatorKeyError
from pet.messages import decode_seed_dictionary, decode_sum_dictionary
from pet.model_formats import NPY, decode_npy
from pet.transports.http import HttpTransport


class CountedModel:
    """A model that counts how often its weights are gone through."""

    def __init__(self, model) -> None:
        self._model, self.passes = model, 0

    def __getattr__(self, name):
        return getattr(self._model, name)

    def array_chunks(self):
        self.passes += 1
        return self._model.array_chunks()


@pytest.fixture
def app(tmp_path):
    """With no minimum time a phase ends with exactly its minimum count."""
    create_key_file(tmp_path / "coordinator.key")
    window = {"count": {"min": 2, "max": 10}, "time": {"min": 0, "max": 600}}
    update = {"count": {"min": 3, "max": 10}, "time": {"min": 0, "max": 600}}
    phases = {"sum": {"prob": 0.5, **window}, "update": {"prob": 0.9, **update}, "sum2": window}
    return create_app(Settings(pet=phases, service={"coordinator_key": str(tmp_path / "coordinator.key")}))


@pytest.fixture
def key(app, tmp_path):
    return read_key_file(tmp_path / "coordinator.key").public_key


def test_each_answer_of_a_round_is_taken_and_anothers_seeds_are_not(app, key):
    with (
        serving(app) as url,
        ManInTheMiddle(url).listening() as adversary,
        contextlib.closing(HttpTransport(adversary.url, coordinator_key=key)) as transport,
    ):
        first = transport.get_parameters()
        assert transport.get_sums() is None
        assert transport.get_model() is None
        round_ = SealedRound(first)
        one, other = round_.keys("sum", 2)
        for sum_key in (one, other):
            transport.send_message(bytes(round_.sum(sum_key)))
        wait_until(lambda: transport.get_sums() is not None, 60)
        sums = decode_sum_dictionary(transport.get_sums())
        assert sums.keys() == {one.public_key, other.public_key}
        assert transport.get_seeds(one.public_key) is None
        for index, update_key in enumerate(round_.keys("update", 3)):
            transport.send_message(bytes(round_.update(update_key, sums, WEIGHTS * (index / 4))))
        wait_until(lambda: transport.get_seeds(one.public_key) is not None, 60)

        transport.get_seeds(other.public_key)
        others = adversary.seen[-1]
        adversary.rewrite = lambda answer: replace(answer, body=others.body, signature=others.signature)
        with pytest.raises(CoordinatorKeyError):
            transport.get_seeds(one.public_key)
        adversary.rewrite = lambda answer: answer

        for sum_key in (one, other):
            seeds = decode_seed_dictionary(transport.get_seeds(sum_key.public_key))
            transport.send_message(bytes(round_.sum2(sum_key, list(seeds.values()))))
        wait_until(lambda: transport.get_parameters() != first, 60)
        media_type, body = transport.get_model()
        assert media_type == NPY
        np.testing.assert_allclose(decode_npy(body), WEIGHTS / 4, atol=1e-8)

        counted = CountedModel(app.state.service.engine.model())
        app.state.service.engine._model = counted
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: httpx.get(f"{url}/model", headers={"Accept": NPY}), range(8)))
        assert {answer.content for answer in answers} == {body}
        assert counted.passes == 8 + 1  # one for each answer, and one for the digest of all
        httpx.get(f"{url}/model", headers={"Accept": NPY})
        assert counted.passes == 10


def test_a_coordinator_without_a_key_adds_no_header_and_digests_nothing():
    plain = create_app(Settings(pet={"sum": {"prob": 0.5}, "update": {"prob": 0.9}}))
    with serving(plain) as url, httpx.Client(base_url=url) as client:
        for path in ("/params", "/sums", "/model", f"/seeds?pk={'A' * 43}%3D"):
            answer = client.get(path)
            assert answer.status_code in {200, 204}
            assert "Pet-Signature" not in answer.headers
