"""Peak memory of aggregating many updates: it must not grow with their number.

    python benchmarks/peak_memory.py --updates 100 --length 1000000 --config prime-f32-b0-m3

Prints one JSON object; sizes are resident memory above that of the interpreter with pet imported, in MB of 10^6 bytes.
"""

import argparse
import json
import resource
import sys
from pathlib import Path

import numpy as np

import pet


def peak_bytes() -> int:
    """Return the peak of this process's resident memory.

    Linux counts in getrusage what the process that started this one had before; the status file does not.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return next(1024 * int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=100)
    parser.add_argument("--length", type=int, default=1_000_000)
    parser.add_argument("--config", default="prime-f32-b0-m3")
    arguments = parser.parse_args()
    config = pet.MaskConfig.parse(arguments.config)
    before = peak_bytes()
    total = pet.Aggregation(config, arguments.length)
    # What a coordinator holds of an update is the message that carries it; the same valid message serves as every update here,
    # because making 100 different ones would measure the participants' work.
    body = bytearray(pet.MaskSeed(bytes(32)).derive_mask(config, arguments.length).to_bytes())
    for _ in range(arguments.updates):
        message = bytearray(body)
        total.add(pet.MaskedModel.from_bytes(message))
    mask = pet.sum_masks([pet.MaskSeed(bytes(32))] * arguments.updates, config, min(arguments.length, 1))
    assert total.count == arguments.updates
    assert mask.unit == total.to_masked_model().unit
    assert np.array_equal(total.to_masked_model().vect[:1], mask.vect)
    peak = (peak_bytes() - before) / 1e6
    print(
        json.dumps({"updates": arguments.updates, "length": arguments.length, "config": str(config), "peak_mb": round(peak, 1)})
    )


if __name__ == "__main__":
    main()
