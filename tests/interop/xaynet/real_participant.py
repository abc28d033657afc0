"""One participant of the real xaynet SDK in a process of its own: it holds the GIL while it waits for the network.

Run as: python real_participant.py URL SCALAR JSON-OF-THE-LOCAL-MODEL. Prints a line of JSON for every global model it downloads
and every local model it hands over; ends when its standard input does.
"""

import contextlib
import json
import sys
import threading
import time

from xaynet_sdk.xaynet_sdk import GlobalModelUnavailable, Participant


def main(url: str, scalar: float, local_model: list) -> None:
    participant = Participant(url, scalar)
    is_stopped = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), is_stopped.set()), daemon=True).start()
    while not is_stopped.is_set():
        participant.tick()
        if participant.new_global_model():
            # A coordinator that was killed in between is back soon (tests/coordinator_killer.py).
            with contextlib.suppress(GlobalModelUnavailable):
                print(json.dumps({"global_model": participant.global_model()}), flush=True)
        if participant.should_set_model():
            participant.set_model(local_model)
            print(json.dumps({"local_model": "set"}), flush=True)
        if not participant.made_progress():
            time.sleep(0.05)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), json.loads(sys.argv[3]))
