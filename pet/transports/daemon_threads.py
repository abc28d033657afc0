"""An executor whose threads never hold the end of the program. Knows nothing of what it is given."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


class DaemonThreads(ThreadPoolExecutor):
    """A daemon thread for each call, for what nobody can interrupt: a name that is looked up, above all.

    The interpreter waits at its end for the threads of a pool, and a resolver whose server does not answer takes half a minute.
    """

    def submit(
        self, function: Callable[_Parameters, _Result], /, *args: _Parameters.args, **kwargs: _Parameters.kwargs
    ) -> Future[_Result]:
        """Begin a call. It cannot be cancelled, but need not be waited for."""
        future: Future[_Result] = Future()
        future.set_running_or_notify_cancel()

        def work() -> None:
            try:
                result = function(*args, **kwargs)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        threading.Thread(target=work, name="pet-daemon", daemon=True).start()
        return future
