"""Contracts: boolean rules over statistics, read from text, checked against a schema and then against numbers.

This file is the language; what each function computes is pet/federation/statistics/contract_functions.py.

Source: docs/spec/federation.md 1.6, with its full grammar. OR binds weaker than AND; words of the language are upper case.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Self

from pet.errors import ContractError, FederationValueError
from pet.federation.statistics.contract_functions import FUNCTIONS, Function
from pet.federation.statistics.schema import Schema
from pet.federation.statistics.statistics import Statistics

MAX_LINES: Final = 256
MAX_LINE_LENGTH: Final = 4096
MAX_NESTING: Final = 32

_RELATIONS: Final[dict[str, Callable[[float, float], bool]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
_NUMBER: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_WORD: Final = re.compile(r"[A-Z][A-Z_]*", re.ASCII)
_BARE_NAME: Final = re.compile(r'[^,()"]+')
_QUOTED_NAME: Final = re.compile(r'"([^"]*)"')


@dataclass(frozen=True, slots=True)
class Condition:
    """`function(features) relation number`."""

    function: Function
    features: tuple[str, ...]
    relation: str
    number: float
    text: str

    def failures(self, statistics: Statistics) -> Iterator[str]:
        """Yield the condition if it does not hold, with "undefined" if there is nothing to compare."""
        value = self.function.evaluate(statistics, self.features)
        if not math.isfinite(value):
            yield f"{self.text} (undefined)"
        elif not _RELATIONS[self.relation](value, self.number):
            yield self.text


@dataclass(frozen=True, slots=True)
class AllOf:
    """Terms joined by AND."""

    parts: tuple[Expression, ...]

    def failures(self, statistics: Statistics) -> Iterator[str]:
        """Yield every part that does not hold."""
        for part in self.parts:
            yield from part.failures(statistics)


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Terms joined by OR."""

    parts: tuple[Expression, ...]

    def failures(self, statistics: Statistics) -> Iterator[str]:
        """Yield all parts as one if none holds."""
        found = [list(part.failures(statistics)) for part in self.parts]
        if all(found):
            yield " OR ".join(" AND ".join(failures) for failures in found)


Expression = Condition | AllOf | AnyOf


@dataclass(frozen=True, slots=True)
class Contract:
    """Lines that must all be true.

    Attributes:
        lines: the text, as it was given.
        expressions: one per line that is neither blank nor a comment.
    """

    lines: tuple[str, ...]
    expressions: tuple[Expression, ...]

    @classmethod
    def parse(cls, lines: Sequence[str]) -> Self:
        """Read a contract; an empty one always holds.

        Raises:
            ContractError: names the line (from 1), the column and what was expected.
        """
        if len(lines) > MAX_LINES:
            raise ContractError(f"contract: expected at most {MAX_LINES} lines, got {len(lines)}")
        expressions = []
        for number, line in enumerate(lines, 1):
            if not isinstance(line, str) or len(line) > MAX_LINE_LENGTH:
                raise ContractError(f"line {number}: expected text of at most {MAX_LINE_LENGTH} characters")
            if line.strip() and not line.lstrip().startswith("#"):
                expressions.append(_Parser(line, number).parse())
        return cls(tuple(lines), tuple(expressions))

    def validate(self, schema: Schema) -> None:
        """Check names and kinds of the features against a schema; no numbers are looked at.

        Raises:
            ContractError: a feature that is not there, or of a kind that its function does not take.
        """
        for expression in self.expressions:
            for condition in _conditions(expression):
                try:
                    condition.function.validate(schema, condition.features)
                except FederationValueError as error:
                    raise ContractError(f"{condition.text}: {error}") from None

    def failures(self, statistics: Statistics) -> list[str]:
        """Return what does not hold, empty if all lines are true.

        Raises:
            FederationValueError: a feature is not in the schema; see `validate`.
        """
        return [failure for expression in self.expressions for failure in expression.failures(statistics)]


def _conditions(expression: Expression) -> Iterator[Condition]:
    if isinstance(expression, Condition):
        yield expression
    else:
        for part in expression.parts:
            yield from _conditions(part)


class _Parser:
    """Recursive descent over one line."""

    def __init__(self, line: str, number: int) -> None:
        self._line = line
        self._number = number
        self._at = 0

    def parse(self) -> Expression:
        """Read the whole line."""
        expression = self._expression(0)
        if self._at < len(self._line):
            raise self._error("AND, OR or the end of the line")
        return expression

    def _expression(self, depth: int) -> Expression:
        parts = [self._term(depth)]
        while self._take_word("OR"):
            parts.append(self._term(depth))
        return parts[0] if len(parts) == 1 else AnyOf(tuple(parts))

    def _term(self, depth: int) -> Expression:
        parts = [self._factor(depth)]
        while self._take_word("AND"):
            parts.append(self._factor(depth))
        return parts[0] if len(parts) == 1 else AllOf(tuple(parts))

    def _factor(self, depth: int) -> Expression:
        if not self._take("("):
            return self._condition()
        if depth >= MAX_NESTING:
            raise self._error(f"at most {MAX_NESTING} nested parentheses")
        expression = self._expression(depth + 1)
        self._expect(")")
        return expression

    def _condition(self) -> Condition:
        self._skip_space()
        start = self._at
        word = _WORD.match(self._line, self._at)
        function = FUNCTIONS.get(word[0].replace("OCCURRENCE", "OCCURENCE")) if word else None
        if word is None or function is None:
            raise self._error("the name of a function or a parenthesis")
        self._at = word.end()
        self._expect("(")
        features = [self._feature()]
        while self._take(","):
            features.append(self._feature())
        self._expect(")")
        if len(features) != len(function.kinds):
            raise self._error(f"{len(function.kinds)} features for {word[0]}, got {len(features)},")
        relation = next((sign for sign in _RELATIONS if self._take(sign)), None)
        if relation is None:
            raise self._error(f"one of {' '.join(_RELATIONS)}")
        number = self._number_here()
        return Condition(function, tuple(features), relation, number, self._line[start : self._at].strip())

    def _feature(self) -> str:
        self._skip_space()
        if quoted := _QUOTED_NAME.match(self._line, self._at):
            self._at = quoted.end()
            return quoted[1]
        bare = _BARE_NAME.match(self._line, self._at)
        if bare is None or not bare[0].strip():
            raise self._error("the name of a feature")
        self._at = bare.end()
        return bare[0].strip()

    def _number_here(self) -> float:
        self._skip_space()
        match = _NUMBER.match(self._line, self._at)
        if match is None or not math.isfinite(float(match[0])):
            raise self._error("a finite number")
        self._at = match.end()
        return float(match[0])

    def _skip_space(self) -> None:
        while self._at < len(self._line) and self._line[self._at].isspace():
            self._at += 1

    def _take(self, sign: str) -> bool:
        self._skip_space()
        if not self._line.startswith(sign, self._at):
            return False
        self._at += len(sign)
        self._skip_space()
        return True

    def _take_word(self, word: str) -> bool:
        """Take AND or OR; whatever follows must be apart from it."""
        self._skip_space()
        match = _WORD.match(self._line, self._at)
        return match is not None and match[0] == word and self._take(word)

    def _expect(self, sign: str) -> None:
        if not self._take(sign):
            raise self._error(f"{sign!r}")

    def _error(self, expected: str) -> ContractError:
        rest = self._line[self._at : self._at + 20]
        return ContractError(f"line {self._number}, column {self._at + 1}: expected {expected}, got {rest or 'the end'!r}")
