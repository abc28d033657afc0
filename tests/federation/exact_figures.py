"""What rows say, in exact arithmetic: floats are fractions, and only a root at the end is rounded.

pandas and NumPy lose digits themselves where values are far from 0; here nothing is lost. `test_any_table.py` also holds it
against pandas where pandas has digits.
"""

from __future__ import annotations

import math
from fractions import Fraction


def exact(values):
    """Return the values of a column that are not missing, as fractions."""
    return [Fraction(float(value)) for value in values if not math.isnan(value)]


def root(square: Fraction) -> float:
    """Return a square root, correct to a few units in the last place, of numbers of any size."""
    shift = 2 * ((square.denominator.bit_length() - square.numerator.bit_length() + 140) // 2)
    scaled = square * Fraction(2) ** shift
    return float(Fraction(math.isqrt(scaled.numerator // scaled.denominator)) / Fraction(2) ** (shift // 2))


def moments(values: list[Fraction]) -> dict[str, Fraction]:
    """Return mean and central moments."""
    mean = sum(values) / len(values)
    return {"mean": mean} | {f"m{power}": sum((value - mean) ** power for value in values) / len(values) for power in (2, 3, 4)}


def joint(first, second):
    """Return the rows of two columns that have both values."""
    pairs = [pair for pair in zip(first, second, strict=True) if not any(map(math.isnan, pair))]
    return [exact(column) for column in zip(*pairs, strict=True)] if pairs else [[], []]


def covariance(first: list[Fraction], second: list[Fraction]) -> Fraction:
    """Return the population covariance."""
    return sum(a * b for a, b in zip(first, second, strict=True)) / len(first) - sum(first) * sum(second) / len(first) ** 2


def solve(matrix: list[list[Fraction]], right: list[Fraction]) -> list[Fraction] | None:
    """Solve linear equations by elimination; None if the matrix is singular."""
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    for column in range(len(rows)):
        pivot = next((i for i in range(column, len(rows)) if rows[i][column]), None)
        if pivot is None:
            return None
        rows[column], rows[pivot] = rows[pivot], rows[column]
        rows[column] = [value / rows[column][column] for value in rows[column]]
        for i, row in enumerate(rows):
            if i != column:
                rows[i] = [value - row[column] * own for value, own in zip(row, rows[column], strict=True)]
    return [row[-1] for row in rows]


def regression(features: list[list[Fraction]], target: list[Fraction]):
    """Fit a target by features with an intercept.

    Returns:
        Slopes and intercept, their standard errors squared, R^2 (None where the target is constant), and the residual variance;
        None if the features depend on each other.
    """
    columns = [*features, [Fraction(1)] * len(target)]
    size, rows = len(columns), len(target)
    matrix = [[sum(a * b for a, b in zip(one, other, strict=True)) for other in columns] for one in columns]
    fit = solve(matrix, [sum(a * b for a, b in zip(column, target, strict=True)) for column in columns])
    if fit is None:
        return None
    squares = sum(
        (value - sum(slope * column[i] for slope, column in zip(fit, columns, strict=True))) ** 2
        for i, value in enumerate(target)
    )
    variance, total = squares / (rows - size), rows * moments(target)["m2"]
    inverse = [solve(matrix, [Fraction(i == j) for i in range(size)])[j] for j in range(size)]
    return fit, [variance * entry for entry in inverse], 1 - squares / total if total else None, variance
