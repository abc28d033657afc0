"""How long one large update takes from its last byte to its answer, and what several at once cost in memory.

Runs `pet coordinator` as a process of its own, registers one sum participant, and uploads updates of 25 million weights (150
MB) over loopback HTTP, one after the other and then several at the same time. Beside each, in the same run: what libsodium
alone needs to open and verify as many bytes, and what a bare socket needs to carry them. For the participant's side: what
masking, and signing and sealing take, beside what OpenSSL and libsodium alone need to sign and seal.

    python benchmarks/bench_upload.py [--length 25000000] [--uploads 3] [--at-once 4]
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np

from pet import kernels
from pet.crypto import (
    SEAL_BYTES,
    SUM_TASK,
    UPDATE_TASK,
    EncryptionKeyPair,
    SigningKeyPair,
    is_eligible,
    open_sealed_in_place,
    seal,
    seal_in_place,
    sign_in_place,
    sign_task,
    verify_signed,
)
from pet.mask_object import MaskSeed
from pet.masking import mask_model
from pet.messages import Message, RoundParameters, SumPayload, UpdatePayload, decode_sum_dictionary, seal_message

SETTINGS = """
[api]
bind_address = "127.0.0.1:0"
[pet]
sum = 0.5
update = 1.0
min_sum_count = 1
min_sum_time = 0
min_update_count = {updates}
min_update_time = 0
[model]
length = {length}
"""
PIECE_BYTES = 1 << 18


class CoordinatorProcess:
    """`pet coordinator` in a process of its own."""

    def __init__(self, length: int, updates: int) -> None:
        self._folder = tempfile.TemporaryDirectory()
        path = Path(self._folder.name, "upload.toml")
        path.write_text(SETTINGS.format(length=length, updates=updates))
        command = [sys.executable, "-c", "from pet.cli import main; main()", "coordinator", "-c", str(path)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if found := re.search(r"http://([\d.]+):(\d+)", line):
                self.address = found[1], int(found[2])
                return
        raise SystemExit("the coordinator did not start")

    @property
    def url(self) -> str:
        return f"http://{self.address[0]}:{self.address[1]}"

    def peak_megabytes(self) -> float:
        """Return VmHWM: the most memory the process ever had."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) / 1000

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)
        self._folder.cleanup()


def find_keys(parameters: RoundParameters, is_sum: bool, count: int) -> list[SigningKeyPair]:
    keys = []
    while len(keys) < count:
        key = SigningKeyPair.generate()
        if is_eligible(sign_task(key, parameters.seed, SUM_TASK), parameters.sum_probability) == is_sum:
            keys.append(key)
    return keys


def sum_body(parameters: RoundParameters, key: SigningKeyPair) -> bytearray:
    payload = SumPayload(
        sum_signature=sign_task(key, parameters.seed, SUM_TASK), ephemeral_public_key=EncryptionKeyPair.generate().public_key
    )
    return seal_message(message(parameters, key, payload), key)


def update_body(parameters: RoundParameters, key: SigningKeyPair, sums: dict[bytes, bytes], *, is_shown: bool) -> bytearray:
    weights = np.random.default_rng(1).uniform(-1, 1, parameters.model_length).astype(np.float32)
    start = time.perf_counter()
    seed, masked_model = mask_model(weights, parameters.mask_config, 1, MaskSeed.generate())
    masked = time.perf_counter()
    payload = UpdatePayload(
        sum_signature=sign_task(key, parameters.seed, SUM_TASK),
        update_signature=sign_task(key, parameters.seed, UPDATE_TASK),
        masked_model=masked_model,
        local_seed_dictionary={public_key: seal(seed.to_bytes(), ephemeral) for public_key, ephemeral in sums.items()},
    )
    body = seal_message(message(parameters, key, payload), key)
    sealed = time.perf_counter()
    if is_shown:
        sign_seconds, seal_seconds = libraries_sealing_seconds(key, parameters.coordinator_public_key, bytearray(body))
        own = sign_seconds + seal_seconds
        print(
            f"  participant: mask {masked - start:.3f} s, sign and seal {sealed - masked:.3f} s"
            f" = {(sealed - masked) / own:.2f} x the libraries' own {own:.3f} s"
            f" (sign {sign_seconds:.3f}, seal {seal_seconds:.3f})"
        )
    return body


def libraries_sealing_seconds(key: SigningKeyPair, public_key: bytes, buffer: bytearray) -> tuple[float, float]:
    """Return the seconds that signing and sealing alone take, in place, in a buffer that is already there."""
    start = time.perf_counter()
    with memoryview(buffer) as view:
        sign_in_place(view[SEAL_BYTES:], key)
    between = time.perf_counter()
    seal_in_place(buffer, public_key)
    return between - start, time.perf_counter() - between


def message(parameters: RoundParameters, key: SigningKeyPair, payload: SumPayload | UpdatePayload) -> Message:
    return Message(
        participant_public_key=key.public_key,
        coordinator_public_key=parameters.coordinator_public_key,
        payload=payload,
        tag=payload.tag,
    )


def upload(address: tuple[str, int], body: bytearray) -> tuple[float, float]:
    """Send a body; return the seconds of the transfer, and those from its last byte to the answer."""
    with socket.create_connection(address) as connection:
        connection.sendall(f"POST /message HTTP/1.1\r\nHost: pet\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        start = time.perf_counter()
        send(connection, body)
        sent = time.perf_counter()
        answer = connection.recv(4096)
        answered = time.perf_counter()
    assert answer.startswith(b"HTTP/1.1 200"), answer
    return sent - start, answered - sent


def send(connection: socket.socket, body: bytearray) -> None:
    with memoryview(body) as view:
        for start in range(0, len(view), PIECE_BYTES):
            connection.sendall(view[start : start + PIECE_BYTES])


def bare_socket_seconds(body: bytearray) -> float:
    """Return how long loopback needs for as many bytes when the other side only reads them."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drain() -> None:
            connection, _ = server.accept()
            with connection:
                buffer = bytearray(PIECE_BYTES)
                while connection.recv_into(buffer):
                    pass

        reader = threading.Thread(target=drain)
        reader.start()
        start = time.perf_counter()
        with socket.create_connection(server.getsockname()) as connection:
            send(connection, body)
        reader.join()
    return time.perf_counter() - start


def libsodium_seconds(key: SigningKeyPair, body_bytes: int) -> tuple[float, float]:
    """Return the seconds that opening and verifying alone take, in place, for as many bytes."""
    keys = EncryptionKeyPair.generate()
    data = os.urandom(body_bytes - 48 - 64)
    box = bytearray(seal(key.sign(data) + data, keys.public_key))
    start = time.perf_counter()
    opened = open_sealed_in_place(box, keys)
    between = time.perf_counter()
    is_valid = verify_signed(opened, key.public_key)
    end = time.perf_counter()
    assert is_valid
    return between - start, end - between


def upload_one_by_one(coordinator: CoordinatorProcess, bodies: Iterator[bytearray], key: SigningKeyPair) -> None:
    for number, body in enumerate(bodies, start=1):
        open_seconds, verify_seconds = libsodium_seconds(key, len(body))
        bare = bare_socket_seconds(body)
        transfer, answered = upload(coordinator.address, body)
        own = open_seconds + verify_seconds
        print(
            f"upload {number}: {len(body) / 1e6:.1f} MB, transfer {transfer:.3f} s = {transfer / bare:.1f} x a bare socket's"
            f" {bare:.3f} s; last byte to answer {answered:.3f} s = {answered / own:.2f} x libsodium's {own:.3f} s"
            f" (open {open_seconds:.3f}, verify {verify_seconds:.3f}); peak memory {coordinator.peak_megabytes():.0f} MB"
        )


def upload_at_once(coordinator: CoordinatorProcess, bodies: list[bytearray]) -> None:
    start = time.perf_counter()
    with ThreadPoolExecutor(len(bodies)) as threads:
        list(threads.map(lambda body: upload(coordinator.address, body), bodies))
    seconds = time.perf_counter() - start
    megabytes = sum(map(len, bodies)) / 1e6
    print(
        f"{len(bodies)} uploads at once: {seconds:.2f} s, {megabytes / seconds:.0f} MB/s;"
        f" peak memory {coordinator.peak_megabytes():.0f} MB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=25_000_000)
    parser.add_argument("--uploads", type=int, default=3)
    parser.add_argument("--at-once", type=int, default=4)
    arguments = parser.parse_args()
    count = arguments.uploads + arguments.at_once
    coordinator = CoordinatorProcess(arguments.length, max(3, count) + 1)
    try:
        parameters = RoundParameters.from_bytes(httpx.get(f"{coordinator.url}/params").content)
        (sum_key,) = find_keys(parameters, is_sum=True, count=1)
        upload(coordinator.address, sum_body(parameters, sum_key))
        while (answer := httpx.get(f"{coordinator.url}/sums")).status_code != 200:
            time.sleep(0.05)
        sums = decode_sum_dictionary(answer.content)
        print(f"kernels: {kernels.active_backend()}; memory before the first update: {coordinator.peak_megabytes():.0f} MB")
        keys = find_keys(parameters, is_sum=False, count=count)
        one_by_one, at_once = keys[: arguments.uploads], keys[arguments.uploads :]
        upload_one_by_one(coordinator, (update_body(parameters, key, sums, is_shown=True) for key in one_by_one), sum_key)
        upload_at_once(coordinator, [update_body(parameters, key, sums, is_shown=False) for key in at_once])
        status = httpx.get(f"{coordinator.url}/status").json()
        assert (status["accepted"], status["rejected"]) == (count, {}), status
    finally:
        coordinator.stop()


if __name__ == "__main__":
    main()
