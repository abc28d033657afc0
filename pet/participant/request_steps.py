"""Steps that ask for something and go on with the answer, as generators, driven by callers that block, and on asyncio."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

_Result = TypeVar("_Result")
_Steps = Generator[Any, Any, _Result]


@dataclass(frozen=True, slots=True)
class RequestStep(Generic[_Result]):
    """Where a generator of requests is.

    Attributes:
        request: what it asks for; None if it is through.
        result: what it returned then.
    """

    request: Any
    result: _Result | None


def begin(steps: _Steps[_Result]) -> RequestStep[_Result]:
    """Return the first request."""
    return _advance(lambda: next(steps))


def follow(steps: _Steps[_Result], answer: Any) -> RequestStep[_Result]:
    """Give a generator the answer that it waits for."""
    return _advance(lambda: steps.send(answer))


def throw(steps: _Steps[_Result], error: Exception) -> RequestStep[_Result]:
    """Tell a generator why there is no answer; it raises that, or something better."""
    return _advance(lambda: steps.throw(error))


def _advance(go_on: Callable[[], Any]) -> RequestStep[Any]:
    # A StopIteration must not leave a worker thread: no future takes it.
    try:
        return RequestStep(go_on(), None)
    except StopIteration as end:
        return RequestStep(None, end.value)
