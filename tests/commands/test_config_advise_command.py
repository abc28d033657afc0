"""`pet config advise`: the options and what is printed; the cost model has its own tests."""

import pytest

from pet import cli

USUAL = ["config", "advise", "--bound", "1", "--models", "500"]


def test_the_cheapest_config_comes_first(capsys):
    assert cli.run([*USUAL, "--precision", "1e-6", "--scalar-sum", "1", "--limit", "2"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if "power2-" in line or "prime-" in line]
    assert [line[0] for line in lines] == ["power2-f32-b0-m6", "prime-f64-b2-m9"]
    assert lines[0][1:4] == ["16.0", "6.0", "7"]


def test_a_rate_can_be_given(capsys):
    assert cli.run([*USUAL, "--rate", "1024", "--limit", "1"]) == 0
    assert "16.0     16.0" in capsys.readouterr().out


def test_times_can_be_measured(capsys):
    assert cli.run([*USUAL, "--measure", "--limit", "1"]) == 0
    assert "measured with" in capsys.readouterr().out


@pytest.mark.parametrize(("bound", "is_warned"), [("1", False), ("1e7", True)])
def test_floats_with_bmax_bring_a_warning(capsys, bound, is_warned):
    assert cli.run(["config", "advise", "--bound", bound, "--models", "10", "--precision", "1"]) == 0
    assert ("real xaynet clients hang" in capsys.readouterr().out) == is_warned


def test_integers_are_considered_by_name(capsys):
    assert cli.run([*USUAL, "--data-type", "i32", "--precision", "2"]) == 0
    assert "-i32-" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "value"),
    [("--bound", "wide"), ("--models", "2.5"), ("--precision", "1/0"), ("--data-type", "f16"), ("--limit", "0")],
)
def test_bad_values_are_usage_errors(capsys, option, value):
    arguments = ["config", "advise", "--bound", "1", "--models", "3", option, value]
    assert cli.run(arguments) == 2
    assert option in capsys.readouterr().err
