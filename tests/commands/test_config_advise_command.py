"""`pet config advise`: the options and what is printed; the cost model has its own tests."""

import time

import pytest

from pet import cli, kernels
from pet.commands import config_advise
from pet.mask_config import MaskConfig

USUAL = ["config", "advise", "--bound", "1", "--models", "500"]


def plain(capsys):
    """Return what was printed, with the notes on one line however wide the terminal is."""
    out = capsys.readouterr().out
    table, _, notes = out.partition(" mask configs hold ")
    return table + " ".join(notes.split())


def test_the_cheapest_config_comes_first(capsys):
    assert cli.run([*USUAL, "--precision", "1e-6", "--scalar-sum", "1", "--limit", "2", "--xaynet"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if "power2-" in line or "prime-" in line]
    assert [line[0] for line in lines] == ["power2-f32-b0-m6", "prime-f64-b2-m9"]
    assert (lines[0][1], lines[0][3]) == ("16.0", "7"), "bytes of keystream, and on the wire"


def test_pet_1_is_listed_with_what_it_costs_and_that_no_coordinator_takes_it(capsys):
    assert cli.run([*USUAL, "--precision", "1e-6", "--rate", "1024"]) == 0
    text = plain(capsys)
    rows = [line.split() for line in text.splitlines() if "pet-1/" in line or "power2-" in line]
    assert rows[0] == ["pet-1/z32,f32,bound=1,models=1000", "4.0", "4.0", "4", "+", "100%", "4.1e-07"]
    assert [row[0] for row in rows if row[0].startswith("pet-1/z64")]
    assert rows[4][0].startswith("power2-")
    assert "no code on the wire yet: no coordinator takes it" in text
    assert cli.run([*USUAL, "--precision", "1e-6", "--rate", "1024", "--xaynet"]) == 0
    assert "pet-1" not in plain(capsys)


def test_each_derivation_is_measured_with_a_config_of_its_own(capsys):
    assert cli.run([*USUAL, "--precision", "1e-6"]) == 0
    text = plain(capsys)
    assert "ns per KiB of keystream (xaynet) and " in text
    assert "ns per KiB of keystream (pet-1), measured on this machine" in text


def test_a_rate_can_be_given(capsys):
    assert cli.run([*USUAL, "--rate", "1024", "--limit", "1", "--xaynet"]) == 0
    assert "16.0     16.0" in capsys.readouterr().out


def test_the_given_rate_stands_in_the_notes(capsys):
    assert cli.run([*USUAL, "--rate", "385", "--limit", "1"]) == 0
    assert "at the 385 ns per KiB of keystream that were given" in plain(capsys)


def test_times_can_be_measured(capsys):
    assert cli.run([*USUAL, "--measure", "--limit", "1"]) == 0
    assert f"each config measured on this machine (back-end {kernels.active_backend()})" in plain(capsys)


@pytest.mark.parametrize("measured_backend", ["portable", "reference"], indirect=True)
@pytest.mark.parametrize("derivation", [["--xaynet"], []], ids=["xaynet", "pet-1"])
def test_the_cost_is_that_of_this_machine_and_its_back_end(capsys, measured_backend, derivation):
    """Held against expanding a mask of the very config that is listed; a busy machine may be four times slower in between."""
    assert cli.run([*USUAL, "--limit", "1", *derivation]) == 0
    text = plain(capsys)
    assert f"measured on this machine (back-end {measured_backend})" in text
    row = next(line.split() for line in text.splitlines() if " 100% " in line or "-f32-" in line)
    name, shown = row[0], row[2]
    measured = config_advise.measure_expansion(MaskConfig.parse(name))
    assert measured / 4 < float(shown) < 4 * measured


@pytest.mark.parametrize("measured_backend", ["portable", "reference"], indirect=True)
@pytest.mark.usefixtures("measured_backend")
@pytest.mark.parametrize("name", ["prime-f32-b0-m3", "pet-1/z32,f32,bound=1,models=1000"])
def test_the_probe_is_short(name):
    """In CPU time of its thread, which others cannot take; of the fastest and of the slowest kind of back-end.

    Without the growth of its passes being bounded the reference would take minutes. Caches and sibling cores that others use
    make the same work two or three times as dear, so the limit is what a person would notice.
    """
    probe = MaskConfig.parse(name)
    config_advise.measure_keystream(probe)
    start = time.thread_time()
    config_advise.measure_keystream(probe)
    assert time.thread_time() - start < 1


def test_measuring_and_a_given_rate_exclude_each_other(capsys):
    assert cli.run([*USUAL, "--measure", "--rate", "385"]) == 2
    assert "expected one of --measure and --rate, got both" in capsys.readouterr().err


@pytest.mark.parametrize(("bound", "is_warned"), [("1", False), ("1e7", True)])
def test_floats_with_bmax_bring_a_warning(capsys, bound, is_warned):
    assert cli.run(["config", "advise", "--bound", bound, "--models", "10", "--precision", "1", "--xaynet"]) == 0
    assert ("real xaynet clients hang" in capsys.readouterr().out) == is_warned


def test_integers_are_considered_by_name(capsys):
    assert cli.run([*USUAL, "--data-type", "i32", "--precision", "2"]) == 0
    assert "-i32-" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("--rate", value) for value in ("0", "-1", "nan", "inf", "fast")),
        ("--bound", "wide"),
        ("--models", "2.5"),
        ("--precision", "1/0"),
        ("--data-type", "f16"),
        ("--limit", "0"),
    ],
)
def test_bad_values_are_usage_errors(capsys, option, value):
    arguments = ["config", "advise", "--bound", "1", "--models", "3", option, value]
    assert cli.run(arguments) == 2
    assert option in capsys.readouterr().err
