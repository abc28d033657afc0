"""A coordinator inside somebody else's web application: mounted under /federation, beside pages of its own.

    python examples/embedded_asgi.py

The application below could be anything that speaks ASGI. It serves a page, mounts pet's routes, and runs the coordinator as
long as it runs itself. Participants then take part over real HTTP, and the page shows what the coordinator learns: the mean.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from pet.coordinator.service import CoordinatorService
from pet.coordinator.settings import Settings
from pet.messages import Tag
from pet.participant.ticks import TickParticipant
from pet.protocol.participant_events import MessageDelivered
from pet.transports import asgi
from pet.transports.http import HttpTransport

LENGTH = 8
SAMPLE_COUNTS = (120, 40, 300, 80, 200, 60, 90, 150, 30, 170, 110, 50)
TIME_LIMIT_SECONDS = 60


def make_application() -> Starlette:
    """Return the host application; its lifespan starts and stops the coordinator."""
    window = {"count": {"min": 1, "max": 20}, "time": {"min": 0.5, "max": 10}}
    settings = Settings(
        pet={"sum": {"prob": 0.3, **window}, "update": {"prob": 0.95, "time": {"min": 2, "max": 10}}, "sum2": window},
        model={"length": LENGTH},
    )
    service = CoordinatorService.from_settings(settings)

    async def page(_: Request) -> Response:
        model = service.endpoint.model()
        if model is None:
            return PlainTextResponse("no model yet")
        return PlainTextResponse(f"round {model.round_id}: {np.round(model.to_array(), 3)}")

    routes = [Route("/", page), Mount("/federation", asgi.create_app(service))]
    return Starlette(routes=routes, lifespan=service.lifespan)


@contextlib.contextmanager
def serve(application: Starlette) -> Iterator[str]:
    """Serve the application from a thread and yield its URL, as a test of the host would do."""
    # With the protocol named asyncio turns off Nagle's algorithm, which costs 40 ms an answer; uvicorn.run does so by itself.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(application, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def take_part(url: str, models: list[np.ndarray]) -> tuple[np.ndarray, list[int]]:
    """Let one participant per model take part until a round gave a global model.

    Returns:
        The global model, and which participants' models are in it.
    """
    transport = HttpTransport(url)
    shares = [count / sum(SAMPLE_COUNTS) for count in SAMPLE_COUNTS]
    participants = [TickParticipant(transport, scalar=share, threads=1) for share in shares]
    updates: dict[bytes, list[int]] = {}
    finished = b""
    deadline = time.monotonic() + TIME_LIMIT_SECONDS
    while time.monotonic() < deadline:
        for index, participant in enumerate(participants):
            for event in participant.tick():
                if isinstance(event, MessageDelivered) and participant.parameters is not None:
                    round_digest = participant.parameters.digest()
                    if event.tag is Tag.UPDATE:
                        updates.setdefault(round_digest, []).append(index)
                    elif event.tag is Tag.SUM2:
                        finished = round_digest
            if participant.should_set_model:
                participant.set_model(models[index])
        global_model = participants[0].global_model()
        if global_model is not None:
            transport.close()
            return global_model, updates[finished]
        time.sleep(0.02)
    raise SystemExit(f"expected a global model within {TIME_LIMIT_SECONDS} seconds, got none")


def main() -> None:
    """Run the application and a round in it, and hold the result against the mean that only this file can compute."""
    generator = np.random.default_rng(0)
    models = [generator.uniform(-1, 1, LENGTH).astype(np.float32) for _ in SAMPLE_COUNTS]
    with serve(make_application()) as url:
        print(f"the host's own page: {httpx.get(url).text}")
        global_model, contributors = take_part(f"{url}/federation", models)
        print(f"the host's own page: {httpx.get(url).text}")
        print(f"the coordinator's status: {httpx.get(f'{url}/federation/status').json()}")
    weights = [SAMPLE_COUNTS[index] for index in contributors]
    expected = np.average([models[index] for index in contributors], axis=0, weights=weights)
    error = float(np.abs(global_model - expected).max())
    # Far above the masking error, far below anything a wrong mean would give.
    if error > 1e-6:
        raise SystemExit(f"error of the mean: expected at most 1e-6, got {error:.1e}")
    print(f"{len(contributors)} of {len(models)} models are in the mean; largest error {error:.1e}")


if __name__ == "__main__":
    main()
