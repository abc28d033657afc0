"""The projects of one peer, of either kind, and how they follow the federation's schema.

Source: docs/spec/federation.md 1.1, 1.10.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import numpy as np

from pet.errors import FederationStateError, FederationValueError
from pet.federation.formats.model_shape import ModelShape
from pet.federation.formats.tables import read_columns
from pet.federation.peer.context import PeerContext
from pet.federation.peer.contributions import Contributor, StatisticsContributor
from pet.federation.peer.local_project import LocalProject, SharedProject, ShownProject
from pet.federation.peer.model_contributor import ModelContributor
from pet.federation.peer.project import FederatedProject, ModelProject
from pet.federation.peer.row_guard import RowGuard
from pet.federation.records import Mode, ProjectKind
from pet.federation.statistics.devices import device_of
from pet.federation.statistics.schema import Schema

_Value = TypeVar("_Value")


class PeerProjects:
    """What a peer holds: the local and the federated project, or a model.

    Args:
        context: of this peer.
        publish_schema: called, in any thread, with the schema that the admin's first rows led to.

    Attributes:
        contributor: what rounds see.
    """

    def __init__(self, context: PeerContext, publish_schema: Callable[[Schema], None]) -> None:
        self._context: Final = context
        self._publish_schema: Final = publish_schema
        self._local, self._federated, self._model = self._open()
        self.contributor: Final = self._make_contributor()

    def _open(self) -> tuple[LocalProject | None, FederatedProject | None, ModelProject | None]:
        context, terms = self._context, self._context.terms
        if terms.kind is ProjectKind.MODEL:
            return None, None, ModelProject(context.store, ModelShape.from_json(terms.schema))
        schema = None if terms.schema is None else Schema.from_json(terms.schema, is_agreed=True)
        propose, device = self._propose if context.record.is_admin else None, device_of(context.record.local_type)
        local = LocalProject(context.store, schema, propose, device=device, is_masked=terms.uses_smpc, guard=self._make_guard())
        federated = FederatedProject(context.store, None if terms.uses_smpc else ShownProject(local), context.counters.applied)
        if schema is not None:
            federated.load(schema)
        return local, federated, None

    def _make_guard(self) -> RowGuard | None:
        """Return what keeps the rule of minimum rows; under masks in compatibility mode the rule is for all peers together."""
        context, counters = self._context, self._context.counters
        if context.terms.uses_smpc and context.terms.mode is Mode.COMPAT:
            return None
        return RowGuard(
            context.store,
            lambda schema: context.record.least_rows or schema.least_rows,
            (counters.shared_version, counters.shared_rows),
        )

    def _make_contributor(self) -> Contributor[Any]:
        if self._model is not None:
            return ModelContributor(self._context, self._model)
        return StatisticsContributor(self._context, self.local, self.federated)

    @property
    def local(self) -> LocalProject:
        """This peer's rows.

        Raises:
            FederationStateError: the project is of the model kind.
        """
        return _required(self._local, "project: expected one of the statistics kind, got a model")

    @property
    def federated(self) -> FederatedProject:
        """The merge over the peers; there may be nothing in it yet.

        Raises:
            FederationStateError: the project is of the model kind.
        """
        return _required(self._federated, "project: expected one of the statistics kind, got a model")

    @property
    def model(self) -> ModelProject:
        """The model.

        Raises:
            FederationStateError: the project is of the statistics kind.
        """
        return _required(self._model, "project: expected one of the model kind, got statistics")

    def follow_terms(self) -> None:
        """Take over the schema of new terms."""
        text = self._context.terms.schema
        if self._local is None or self._federated is None or text is None:
            return
        schema = Schema.from_json(text, is_agreed=True)
        try:
            self._local.use_schema(schema)
            self._federated.load(schema)
        except FederationStateError as error:
            self._context.log_error(str(error))

    def explore(self, function: str, arguments: object) -> dict[str, Any]:
        """Compute a function on the local project, for another peer; returns the entities of an answer.

        Raises:
            FederationStateError: this peer does not allow it.
            FederationValueError: there is no such function, or it takes other arguments.
        """
        if self._context.terms.uses_smpc or not self._context.record.allows_explore or self._local is None:
            raise FederationStateError("exploration: this peer does not allow it")
        shown = self._shown_to_others(self._local)
        known: dict[str, Callable[..., Any]] = {
            "univariate": shown.univariate,
            "covariance": shown.covariance,
            "correlation": shown.correlation,
        }
        if function not in known or not isinstance(arguments, Mapping):
            raise FederationValueError(f"exploration: expected one of {', '.join(known)} with arguments, got something else")
        try:
            found = known[function](**{str(key): value for key, value in arguments.items()})
        except TypeError:
            raise FederationValueError(f"exploration: expected other arguments for {function}") from None
        entities: dict[str, Any] = found.entities(function)
        return entities

    def _shown_to_others(self, local: LocalProject) -> SharedProject:
        """Return what leaves this peer with the answer: as in an exchange, by the rule of minimum rows."""
        if (offered := local.offered()) is None:
            raise FederationStateError("exploration: expected rows that may be shown, got none")
        local.note_shared(offered)
        return SharedProject(offered.statistics)

    def _propose(self, source: Any) -> Schema:
        """Make the schema of the federation from the admin's first table."""
        names, values = read_columns(source)
        schema = Schema.propose(names, values, has_missing=bool(np.isnan(values).any()))
        self._publish_schema(schema)
        return schema


def _required(value: _Value | None, problem: str) -> _Value:
    if value is None:
        raise FederationStateError(problem)
    return value
