"""The sums over one block of raw rows, on the CPU or a GPU: where rows become numbers that add up over peers.

Source: docs/spec/federation.md 1.9.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pet.federation.statistics.devices import Device
from pet.federation.statistics.schema import Schema


def block_sums(block: NDArray[np.float64], schema: Schema, device: Device) -> NDArray[np.float64]:
    """Return the sums over one block of raw rows; a missing value adds nothing.

    Written in what NumPy and torch spell alike: on a GPU the same lines run there, and only the sums come back.

    Raises:
        DeviceError: the device is missing or failed.
    """
    with device.computing() as arrays:
        layout, of_schema, rows = schema.layout, device.arrays_of(schema), device.put(block)
        continuous, binary, pairs = of_schema.continuous, of_schema.binary, of_schema.pairs
        is_seen = ~arrays.isnan(rows)
        z = arrays.where(is_seen, (rows - of_schema.centres) / of_schema.scales, 0.0)
        squares = z * z
        continuous_z, continuous_squares = z[:, continuous], squares[:, continuous]
        sums = device.put(np.zeros(layout.length))
        sums[layout.counts] = is_seen.sum(axis=0)
        sums[layout.sums] = z.sum(axis=0)
        sums[layout.squares] = squares.sum(axis=0)
        sums[layout.cubes] = (continuous_squares * continuous_z).sum(axis=0)
        sums[layout.fourths] = (continuous_squares * continuous_squares).sum(axis=0)
        sums[layout.products] = (z.T @ z)[pairs]
        if schema.has_missing:
            seen = arrays.asarray(is_seen, dtype=arrays.float64)
            # A missing z is 0 in these products, so each is over the rows that have both features.
            first, second = pairs
            sums[layout.pair_counts] = (seen.T @ seen)[first, second]
            joint, joint_squares = z.T @ seen, squares.T @ seen
            sums[layout.pair_first_sums], sums[layout.pair_second_sums] = joint[first, second], joint[second, first]
            sums[layout.pair_first_squares] = joint_squares[first, second]
            sums[layout.pair_second_squares] = joint_squares[second, first]
        sums[layout.conditional_squares] = (continuous_squares.T @ z[:, binary]).ravel()
        for place, edges in enumerate(of_schema.edges):
            if len(edges):
                bins = arrays.searchsorted(edges, rows[is_seen[:, place], place], side="right")
                sums[layout.histograms[place]] = arrays.bincount(bins, minlength=len(edges) + 1)
        return device.take(sums)
