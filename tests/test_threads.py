"""How many threads a call uses: its argument, else PET_THREADS, else the cores."""

import numpy as np
import pytest

from pet.errors import ConfigError
from pet.threads import available_cores, resolve_threads


def test_the_argument_wins_over_the_variable_and_the_variable_over_the_cores(monkeypatch):
    monkeypatch.setenv("PET_THREADS", "3")
    assert resolve_threads(2) == 2
    assert resolve_threads(np.int64(2)) == 2
    assert resolve_threads(None) == 3
    monkeypatch.setenv("PET_THREADS", "")
    assert resolve_threads(None) == available_cores() >= 1


@pytest.mark.parametrize("text", ["abc", "0", "-1", "1.5"])
def test_a_variable_that_is_no_number_of_threads_is_refused(monkeypatch, text):
    monkeypatch.setenv("PET_THREADS", text)
    with pytest.raises(ConfigError, match=f"PET_THREADS: expected a whole number of 1 or more, got '{text}'"):
        resolve_threads(None)


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2"])
def test_an_argument_that_is_no_number_of_threads_is_refused(threads):
    with pytest.raises(ConfigError, match="threads: expected "):
        resolve_threads(threads)
