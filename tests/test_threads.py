"""How many threads a call uses: its argument, else PET_THREADS, else the cores that nobody else uses; and the threads."""

import multiprocessing
import os
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import fork_server
import numpy as np
import pytest
from few_threads import NO_MORE_THREADS

from pet.errors import ConfigError
from pet.threads import available_cores, occupy, resolve_threads, run_together


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


def test_a_call_takes_what_it_asks_for(monkeypatch):
    monkeypatch.setenv("PET_THREADS", "4")
    with occupy(7) as count:
        assert count == 7
    with occupy(7, most=2) as count:
        assert count == 2
    with occupy(7, most=0) as count:
        assert count == 1


def test_what_is_left_open_is_what_others_leave(monkeypatch):
    monkeypatch.setenv("PET_THREADS", "4")
    with occupy(None) as outer, occupy(None) as inner:
        assert (outer, inner) == (4, 1)  # the block's own thread is counted once
    with occupy() as outer, occupy(None) as inner:
        assert (outer, inner) == (1, 4)
    with ThreadPoolExecutor(1) as other, occupy(3):
        assert other.submit(count_threads, None).result() == 1
        assert other.submit(count_threads, 5).result() == 5
    with ThreadPoolExecutor(1) as other, occupy():
        assert other.submit(count_threads, None).result() == 3
    assert count_threads(None) == 4


def count_threads(threads):
    with occupy(threads) as count:
        return count


def test_together_means_in_several_threads():
    barrier = threading.Barrier(3, timeout=30)
    run_together(lambda: barrier.wait() and None, 3)


@pytest.mark.parametrize("is_own", [True, False])
def test_an_error_of_any_thread_is_raised_when_all_are_done(is_own):
    own, barrier, ended = threading.get_ident(), threading.Barrier(2, timeout=30), []

    def work():
        barrier.wait()
        if (threading.get_ident() == own) == is_own:
            raise KeyError("spoiled")
        time.sleep(0.05)
        ended.append(True)

    with pytest.raises(KeyError, match="spoiled"):
        run_together(work, 2)
    assert ended == [True]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes by fork on this system")
def test_a_forked_process_has_threads_of_its_own():
    run_together(lambda: None, 2)
    context = multiprocessing.get_context("fork")
    with occupy(2):
        process = context.Process(target=test_together_means_in_several_threads)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12 and later, about forks beside threads
            process.start()
    process.join(60)
    assert process.exitcode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space are kept by Linux")
def test_a_call_goes_on_with_the_threads_that_there_are():
    code = f"""{NO_MORE_THREADS}
import numpy as np
from pet import Aggregation, MaskConfig, MaskSeed, mask_model
try:
    threading.Thread(target=print).start()
    print("a thread was started")
except RuntimeError:
    weights = np.linspace(-1, 1, 300_000, dtype="f4")
    seed, masked = mask_model(weights, MaskConfig.parse("prime-f32-b0-m3"), threads=4)
    total = Aggregation(masked.config, len(weights))
    total.add(masked, threads=4)
    model = total.unmask(seed.derive_mask(masked.config, len(weights), threads=4), threads=4).to_array()
    print(abs(model - weights).max() < 1e-6, threading.active_count())
"""
    done = fork_server.run(code)
    assert (done.stdout, done.stderr) == ("True 1\n", "")
