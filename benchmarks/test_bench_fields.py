"""That benchmarks/field_shares.py still runs: every kernel of pet-1 beside its ceiling, once, at a few elements."""

import math

import field_shares
import numpy as np
import pytest

from pet import kernels
from pet.commands.bench_ceiling import find_compiler


@pytest.mark.skipif(find_compiler() is None, reason="needs a C compiler for the ceilings")
def test_every_kernel_has_a_share(tmp_path):
    kernels.select_backend(None)
    probe = field_shares.load_probe(kernels.active_backend(), tmp_path)
    for order in field_shares.ORDERS.values():
        data = field_shares.Vectors(order, 1000, 0)
        report = field_shares.measure(data, probe, np.ones(3 * 1024), 1)
        assert report.keys() == {*field_shares.kernels_of(data), "two_threads", "ceilings"}
        assert all(math.isfinite(value) and value > 0 for figures in report.values() for value in figures.values())
