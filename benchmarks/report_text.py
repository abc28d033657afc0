"""The texts of docs/benchmarks.md that are made from figures; write_report.py runs what they come from."""

import json
from typing import Any

#: What each kernel does, for readers who come for a table and not for the code.
MEANINGS = {
    "expand": "draw a mask from its seed; with pet-1, and add it to a vector",
    "update": "mask a model: draw, encode and add in one pass",
    "mask sum": "draw and add the masks of eight seeds",
    "mask only": "mask a model with a mask that is drawn already",
    "aggregate 1": "add one masked model to a total",
    "aggregate 8": "add eight different masked models to a total",
    "unmask": "take the mask off a total: the mean, as floats",
    "fractions": "write the mean as exact fractions, as xaynet's clients read it",
    "encode": "pet-1: weights to elements, without a mask",
    "decode": "pet-1: a total without its mask to the mean",
    "multiply-add": "pet-1: add a multiple of a vector: shares, and the mask from shares",
    "inner product": "pet-1: multiply two vectors: what a fingerprint does with each answer",
}
PEERS = ("flwr", "tenseal", "xaynet-sdk-python")


def number(value: float) -> str:
    """Write a figure with three digits, and no exponent below a million."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def table(headings: list[str], rows: list[list[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def machine(report: dict[str, Any], load: float) -> str:
    """Return what the figures were measured on, and how busy it was before: nobody else can know."""
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    busy = f"The load average before the run was {load:.1f} on {report['cores']} cores"
    if load > report["cores"] / 4:
        busy += ": **the machine was shared.** Times are longer than on an idle one, and a share or ratio can be far off"
    return f"{report['cpu']}, {report['cores']} cores, {report['platform']}; {versions}. {busy}."


def glance(report: dict[str, Any], size: int) -> str:
    """Return, for each config, one line for each kernel, of the best back-end at one size."""
    return "\n\n".join(
        glance_config(report, config, size) for config in dict.fromkeys(result["config"] for result in report["results"])
    )


def glance_config(report: dict[str, Any], config: str, size: int) -> str:
    backend = report["results"][0]["backend"]
    rows = [
        [
            result["kernel"],
            MEANINGS[result["kernel"]],
            number(result["median_ns"]),
            f"{result['spread']:.0%}",
            share(result),
        ]
        for result in report["results"]
        if (result["config"], result["backend"], result["size"]) == (config, backend, size)
    ]
    headings = ["kernel", "what it does", "median ns per weight (and vector)", "spread", "share of the ceiling, median"]
    return f"`{config}`, {size:,} weights, back-end {backend}, one thread:\n\n{table(headings, rows)}"


def share(result: dict[str, Any]) -> str:
    """Return the share of the ceiling that the median reaches."""
    if result["ceiling_ns"] is None:
        return ""
    return f"{result['ceiling_ns'] / result['median_ns']:.2f} {result['limit']}"


def kernels(report: dict[str, Any]) -> str:
    """Return every figure of a run of `pet bench`."""
    ceilings = [
        f"{found['backend']}: keystream {found['keystream_ns_per_kib']:.0f} ns/KiB, memory {found['memory_gb_per_s']:.1f} GB/s,"
        f" reads {found['reads_gb_per_s']:.1f} GB/s"
        for found in report["ceilings"]
    ]
    rows = [
        [
            result["config"],
            result["backend"],
            f"{result['size']:,}",
            result["kernel"],
            number(result["best_ns"]),
            number(result["median_ns"]),
            f"{result['spread']:.0%}",
            share(result),
        ]
        for result in report["results"]
    ]
    headings = ["config", "back-end", "weights", "kernel", "best ns", "median ns", "spread", "share of ceiling, median"]
    return "\n\n".join([f"`{report['command']}`", "Ceilings: " + "; ".join(ceilings) + ".", table(headings, rows)])


def require_peers(report: dict[str, Any]) -> None:
    """End the program if a peer was not compared: the page must not lose a comparison unnoticed."""
    missing = [name for name in PEERS if not any(found["peer"].startswith(name) for found in report["peers"])]
    if missing:
        raise SystemExit(f"expected {', '.join(PEERS)} in this environment (extra peers), missing {', '.join(missing)}")


def peers(report: dict[str, Any]) -> str:
    """Return the comparison with the peers, and which of them were faster."""
    rows = [
        [
            found["peer"],
            found["what"],
            f"{found['length']:,}",
            number(found["peer_ns"]),
            number(found["pet_ns"]),
            f"**{number(found['ratio'])}**",
        ]
        for found in report["peers"]
    ]
    headings = ["peer", "what", "weights", "peer, ns per weight", "pet, ns per weight", "times faster"]
    slower = [f"{found['what']} ({found['peer']})" for found in report["peers"] if found["ratio"] < 1]
    verdict = f"pet was slower at: {'; '.join(slower)}." if slower else "pet was slower at nothing of this."
    return "\n\n".join([f"`{report['command']}`", table(headings, rows), verdict])


def homomorphic(report: dict[str, Any]) -> str:
    """Return what homomorphic encryption costs beside pet: bytes and precision."""
    found = [peer for peer in report["peers"] if peer["peer"].startswith("tenseal")]
    (size,) = [peer for peer in found if peer["peer_bytes"] is not None]
    (error,) = [peer for peer in found if peer["peer_error"] is not None]
    rows = [
        ["bytes a weight, as sent", number(size["peer_bytes"]), number(size["pet_bytes"])],
        ["largest error of a weight of the mean", f"{error['peer_error']:.1e}", f"{error['pet_error']:.1e}"],
    ]
    return table(["", f"CKKS, {size['peer']}", "pet"], rows)


def script(command: str, name: str, printed: str) -> str:
    """Return what a script printed; of the gains of threads a table."""
    if name != "threads":
        return f"`{command}`\n\n```\n{printed}\n```"
    report = json.loads(printed)
    rows = [
        [what, threads, number(found["median_ns"]), number(found["best_ns"]), number(found["cpu_ns"]), f"{found['ratio']:.2f}"]
        for what, counts in report.items()
        if isinstance(counts, dict)
        for threads, found in counts.items()
    ]
    headings = ["call", "threads", "median ns", "best ns", "CPU ns", "times faster than one thread, median"]
    return f"`{command}`: `{report['config']}`, {report['length']:,} weights.\n\n{table(headings, rows)}"
