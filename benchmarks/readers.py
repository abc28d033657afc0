"""Readers of the seeds of many updates: fast ones beside /healthz, and ones that do not read.

    python benchmarks/readers.py --updates 10000

Prints the latency of /healthz while fast readers ask again and again, and the memory that silent ones cost the coordinator.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import socket
import sys
import threading
import time
import urllib.parse
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from load_round import SETTINGS, Client, CoordinatorProcess, Load, Round

_READING_SECONDS = 6.0
_LIMITS = "[service]\nmax_requests_per_second = 1000000\nstall_seconds = 600\n"


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=10_000)
    parser.add_argument("--fast", type=int, default=100, help="readers that read")
    parser.add_argument("--silent", type=int, default=200, help="readers that do not")
    arguments = parser.parse_args()
    load = Load(participants=arguments.updates, length=4, sums=1, senders=16)
    coordinator = CoordinatorProcess(SETTINGS.format(sums=1, updates=load.participants, length=load.length) + _LIMITS)
    try:
        client = Client(coordinator.address)
        round_ = Round(client, load)
        (key,) = round_.run_sum()
        round_.run_update()
        path = f"/seeds?pk={urllib.parse.quote(base64.b64encode(key.public_key), safe='')}"
        while not (body := client.get(path)[1]):
            time.sleep(0.05)
        print(f"{load.participants} updates: /seeds has {len(body)} bytes")
        _read_fast(coordinator, path, len(body), arguments.fast)
        _read_nothing(coordinator, client, path, arguments.silent)
    finally:
        coordinator.stop()
    return 0


def _read_fast(coordinator: CoordinatorProcess, path: str, size: int, count: int) -> None:
    """Let readers ask again and again for five seconds, in a process of their own: they would hold up who looks at the time."""
    idle = _health_seconds(coordinator, time.monotonic() + 2)
    with ProcessPoolExecutor(1) as processes:
        reading = processes.submit(_count_answers, coordinator.address, path, size, count)
        time.sleep(1)  # for the process to start
        seconds = _health_seconds(coordinator, time.monotonic() + 4)
        answers = reading.result()
    median, most = seconds[len(seconds) // 2] * 1000, seconds[int(0.99 * (len(seconds) - 1))] * 1000
    print(f"nobody reads: /healthz {idle[len(idle) // 2] * 1000:.1f} ms in the median")
    print(f"{count} fast readers: {answers / _READING_SECONDS:.0f} answers/s; /healthz {median:.1f} ms in the median, ", end="")
    print(f"{most:.1f} ms in 99 of 100")


def _count_answers(address: tuple[str, int], path: str, size: int, count: int) -> int:
    """Return how many answers readers got, each in a thread."""
    end, answers = time.monotonic() + _READING_SECONDS, Counter[int]()

    def read() -> None:
        client = Client(address)
        while time.monotonic() < end:
            status, body = client.get(path)
            assert status != 200 or len(body) == size
            answers[status] += 1

    threads = [threading.Thread(target=read) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers[200]


def _read_nothing(coordinator: CoordinatorProcess, client: Client, path: str, count: int) -> None:
    before = coordinator.megabytes()
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(coordinator.address)
            # Several answers, as the system keeps more than one for a reader.
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() * 8)
        most, end = 0.0, time.monotonic() + 10
        while time.monotonic() < end:
            most = max(most, coordinator.megabytes())
            client.get("/healthz")
            time.sleep(0.05)
    print(f"{count} readers that read nothing: {most - before:+.0f} MB")


def _health_seconds(coordinator: CoordinatorProcess, end: float) -> list[float]:
    client, seconds = Client(coordinator.address), []
    while time.monotonic() < end:
        began = time.monotonic()
        client.get("/healthz")
        seconds.append(time.monotonic() - began)
        time.sleep(0.02)
    return sorted(seconds)


if __name__ == "__main__":
    sys.exit(main())
