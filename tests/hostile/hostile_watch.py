"""Asks a server for /healthz until its standard input ends, and prints the seconds of each answer and the most memory, as JSON.

A process of its own: one that also masks models would measure itself.
"""

import http.client
import json
import re
import ssl
import sys
import threading
import time
from pathlib import Path

SOURCE = "127.0.3.1"


def main(host: str, port: str, pid: str, authority: str | None = None) -> None:
    """Watch."""
    context = None if authority is None else ssl.create_default_context(cafile=authority)
    options = {"timeout": 30, "source_address": (SOURCE, 0)}
    seconds, most, is_over = [], 0.0, threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), is_over.set()), daemon=True).start()
    while not is_over.wait(0.05):
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        most = max(most, int(re.search(r"VmRSS:\s+(\d+) kB", text)[1]) / 1000)
        began = time.monotonic()
        if context is None:
            connection = http.client.HTTPConnection(host, int(port), **options)
        else:
            connection = http.client.HTTPSConnection(host, int(port), context=context, **options)
        try:
            connection.request("GET", "/healthz")
            status = connection.getresponse().status
        except OSError as error:
            status = repr(error)
        finally:
            connection.close()
        if status != 200:
            sys.exit(f"/healthz: expected 200, got {status}")
        seconds.append(time.monotonic() - began)
    print(json.dumps({"seconds": seconds, "most_megabytes": most}))


if __name__ == "__main__":
    main(*sys.argv[1:])
