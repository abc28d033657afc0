"""A Flower grid in one process: real messages, serialised both ways, for a real ClientApp; nodes can be lost at any stage."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1


def stage_of(message: Message) -> str:
    """Return the stage of pet/1 that a message asks for, or its type."""
    record = message.content.get("pet")
    return str(record["stage"]) if isinstance(record, ConfigRecord) else message.metadata.message_type


class LocalGrid(Grid):
    """Calls an app for each message.

    Args:
        app: the clients'.
        node_configs: one for each node.
        is_lost: says whether a node does not answer at a stage.
        changed: returns what a node gets in place of a message.
    """

    def __init__(
        self,
        app: ClientApp,
        node_configs: list[dict[str, Any]],
        is_lost: Callable[[int, str], bool] = lambda _node, _stage: False,
        changed: Callable[[int, Message], Message] = lambda _node, message: message,
    ) -> None:
        self.app, self.is_lost, self.changed = app, is_lost, changed
        self.contexts = {
            1000 + index: Context(run_id=1, node_id=1000 + index, node_config=config, state=RecordDict(), run_config={})
            for index, config in enumerate(node_configs)
        }
        #: Node, stage and size of each answer, and the answer.
        self.answers: list[tuple[int, str, int, Message]] = []

    def set_run(self, run: Any) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Any:
        return SimpleNamespace(run_id=1)  # workflows of the old API ask for no more

    def create_message(self, *_: Any, **__: Any) -> Message:
        raise NotImplementedError

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        raise NotImplementedError

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        raise NotImplementedError

    def get_node_ids(self) -> list[int]:
        return list(self.contexts)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return [self._answer(message) for message in messages]

    def stages(self) -> list[str]:
        """Return the stages of all answers that are no errors."""
        return [stage for _, stage, _, answer in self.answers if not answer.has_error()]

    def _answer(self, message: Message) -> Message:
        node, stage = message.metadata.dst_node_id, stage_of(message)
        message.metadata.__dict__["_message_id"] = uuid.uuid4().hex
        if self.is_lost(node, stage):
            answer = Message(Error(code=0, reason=f"lost in {stage}"), reply_to=message)
        else:
            asked = over_the_wire(self.changed(node, message))
            try:
                answer = self.app(asked, self.contexts[node])
            except Exception as error:  # as a SuperNode does
                answer = Message(Error(code=2, reason=repr(error)), reply_to=asked)
        answer.metadata.__dict__["_src_node_id"] = node
        data = message_to_proto(answer).SerializeToString()
        arrived = _read(data)
        self.answers.append((node, stage, len(data), arrived))
        return arrived


def over_the_wire(message: Message) -> Message:
    """Return what arrives of a message."""
    return _read(message_to_proto(message).SerializeToString())


def _read(data: bytes) -> Message:
    arrived = MessageProto()
    arrived.ParseFromString(data)
    return message_from_proto(arrived)
