"""What a pinned key does not help against: the holder of the key itself."""

import contextlib
from dataclasses import replace

import numpy as np
from asgi_server import serving
from hostile_coordinators import ManInTheMiddle
from participant_driver import live_settings

from pet.coordinator.engine import CoordinatorEngine
from pet.coordinator.service import CoordinatorService
from pet.crypto import SigningKeyPair, hash_sha256
from pet.participant import TickParticipant
from pet.participant.test_drive import DummyFleet
from pet.transports import asgi
from pet.transports.http import HttpTransport
from pet.transports.signed_answers import MODEL_ROUTE, AnswerSigner

KEY = SigningKeyPair.from_seed(bytes(range(32)))


def test_a_coordinator_publishes_another_model_and_nobody_notices():
    """It signs what it likes: nothing proves to participants that a model is the mean of theirs."""
    signer, service = AnswerSigner(KEY), CoordinatorService(CoordinatorEngine(live_settings(sum_probability=0.4)))

    def publish_another(answer):
        if answer.path.startswith("/model") and answer.status == 200:
            # The weights are little-endian float32 at the end of each form of a model but bincode.
            body = answer.body[: -invented.nbytes] + invented.tobytes()
            parameters = service.engine.parameters()
            return replace(
                answer, body=body, signature=signer.sign(MODEL_ROUTE, parameters, hash_sha256(body), answer.media_type)
            )
        return answer

    invented = np.array([0.5, -0.25, 0.125, 0.75], "<f4")
    with (
        serving(asgi.create_app(service, signer=signer)) as url,
        ManInTheMiddle(url).listening() as front,
        contextlib.closing(HttpTransport(front.url, coordinator_key=KEY.public_key)) as transport,
    ):
        DummyFleet(transport, 8, weight=0.25, period_seconds=0.02).run(1)
        participant = TickParticipant(transport)
        participant.tick()
        np.testing.assert_allclose(participant.global_model(), [0.25] * 4, atol=1e-6)
        front.rewrite = publish_another
        np.testing.assert_array_equal(participant.global_model(), invented)
