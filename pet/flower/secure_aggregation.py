"""The server's side: a strategy around one that takes a weighted mean, which runs a round of pet/1 for each round of training.

The inner strategy samples nodes, and gets one reply: the mean of the updates, with the number of examples of all together. It
never sees a single update, so strategies that judge single updates are refused by name.

How a round goes is in pet/flower/server_round.py.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from pet.crypto import SIGNATURE_BYTES, SigningKeyPair
from pet.errors import ConfigError, RemoteProtocolError
from pet.field_config import FieldConfig
from pet.flower import records
from pet.flower.server_round import ServerRound
from pet.flower.vector import UpdateLayout
from pet.mask_choices import Derivation, FieldValues
from pet.masking import ShareWeight
from pet.pet1.enrolment import MIN_UPDATES, Enrolment
from pet.pet1.hashes import digest
from pet.plan import Plan
from pet.protocol.pet1_coordinator import Pet1Coordinator
from pet.protocol.pet1_publications import (
    CertificatePublished,
    CommitteePublished,
    ManifestPublished,
    RoundAnnounced,
    TotalPublished,
)
from pet.protocol.pet1_round import Pet1Settings
from pet.protocol.pet1_windows import PhaseTimes
from pet.protocol.phases import Phase

_logger: Final = logging.getLogger("flwr.pet")

#: They look at single updates, which are hidden here; or their arrays are no weights.
REFUSED_STRATEGIES: Final = frozenset(
    {
        "Bulyan",
        "DifferentialPrivacyClientSideAdaptiveClipping",
        "DifferentialPrivacyServerSideAdaptiveClipping",
        "DifferentialPrivacyServerSideFixedClipping",
        "FedMedian",
        "FedTrimmedAvg",
        "FedXgbBagging",
        "FedXgbCyclic",
        "Krum",
        "MultiKrum",
        "QFedAvg",
    }
)
#: Members of a committee that the server enrols: one more or less only where there are fewer nodes.
_OWN_MEMBERS: Final = 5


class SecureAggregation(Strategy):  # type: ignore[misc]  # Flower is untyped where types are checked
    """Wraps a strategy that takes a weighted mean: FedAvg, FedProx, FedAvgM, FedAdam, FedYogi, FedAdagrad, or one of your own.

    Args:
        strategy: the inner one.
        max_weight: the largest weight (number of examples) that a node has. The nearer the truth, the finer the steps.
        bound: the largest change of a weight times its share that is not clamped.
        field: of the masks: "z32" takes 4 bytes a weight and changes are float32, "z64" takes 8 and they are float64.
        min_updates: the fewest updates that a mean is taken of; the round is skipped with fewer.
        plan: of the committee that the server enrols: one group of five members, of whom three read, if None (fewer where there
            are fewer nodes). Fewer members cost less, and collude more easily.
        enrolment: a file of `Enrolment.from_toml`, whose digest the nodes pin; None has the server enrol the nodes, as the
            sentence at the start says.
        signature: of an authority under the enrolment, where nodes pin its key in place of the digest.
        timeout: seconds that a stage waits for answers, without training.

    Raises:
        ConfigError: a strategy that looks at single updates, or a number outside its range.
        SettingsError: the enrolment cannot be read.
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        max_weight: float = 10_000,
        bound: float = 1.0,
        field: str = "z32",
        min_updates: int = MIN_UPDATES,
        plan: Plan | None = None,
        enrolment: str | Path | None = None,
        signature: bytes = bytes(SIGNATURE_BYTES),
        timeout: int = 600,
    ) -> None:
        for kind in type(strategy).__mro__:
            if kind.__name__ in REFUSED_STRATEGIES:
                raise ConfigError(
                    f"strategy: expected one that takes a weighted mean, got {kind.__name__}, which needs more than the mean"
                )
        if not isinstance(strategy, Strategy):
            raise ConfigError(f"strategy: expected one of flwr.serverapp.strategy, got {_shown_type(strategy)}")
        if type(min_updates) is not int or min_updates < MIN_UPDATES:
            raise ConfigError(f"min_updates: expected {MIN_UPDATES} or more, got {min_updates!r}")
        if type(timeout) is not int or timeout < 1:
            raise ConfigError(f"timeout: expected whole seconds, 1 or more, got {timeout!r}")
        self.strategy: Final = strategy
        self.max_weight: Final = float(ShareWeight(max_weight).max_weight)
        self.bound: Final = float(bound)
        self.field: Final = Derivation.parse(field)
        self._config(2 * min_updates)
        if plan is not None and enrolment is not None:
            raise ConfigError("plan: expected none beside an enrolment, which has one, got both")
        self._plan: Final = plan
        self.min_updates: Final = min_updates
        self.timeout: Final = timeout
        self._pinned: Final = None if enrolment is None else Enrolment.from_toml(enrolment)
        self._signature: Final = signature
        self._authority: Final = SigningKeyPair.generate()
        self._version = 0
        self._last_number = 0
        self._nodes: dict[int, bytes] = {}
        self._enrolment: Enrolment | None = self._pinned
        self._round: ServerRound | None = None
        self._base: ArrayRecord = ArrayRecord()

    # ---- what Flower calls --------------------------------------------------------------------------------------------

    def summary(self) -> None:
        """Say what the rounds are like, and then what the inner strategy is."""
        _logger.info("\t├──> pet: secure aggregation, profile pet/1")
        if self._pinned is None:
            _logger.warning(
                "\t├──> pet: the server enrols the nodes: it could invent members and participants, and learn every update;"
                " without pinned enrolments this protects from a server that is curious, not from one that cheats"
            )
        else:
            for line in self._pinned.describe().splitlines():
                _logger.info("\t├──> pet: %s", line)
        self.strategy.summary()

    def configure_train(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> Iterable[Message]:
        """Sample as the inner strategy does, and open a round of pet/1 for the nodes."""
        messages = list(self.strategy.configure_train(server_round, arrays, config, grid))
        self._round, self._base, self._grid = None, arrays, grid
        if not messages:
            return messages
        kind = messages[0].metadata.message_type
        self._identify(grid, kind)
        enrolment = self._enrolment
        sampled = [each for each in messages if enrolment is not None and self._lists(enrolment, each.metadata.dst_node_id)]
        if enrolment is None or len(sampled) < max(self.min_updates, enrolment.min_updates):
            _logger.warning(
                "pet: %d enrolled nodes sampled, too few for a sum: round %d is skipped", len(sampled), server_round
            )
            return []
        opened = self._open_round(arrays, enrolment, kind, len(sampled))
        announced = opened.published[RoundAnnounced]
        common = {"record": announced.record, "enrolment": announced.enrolment, "authority": self._authority.public_key}
        for signed in self._ask_members(opened, records.SUM, common):
            opened.receive(signed)
        if not opened.goes_on(Phase.UPDATE, server_round):
            return []
        self._round = opened
        committee = opened.published[CommitteePublished].committee
        weight_key = str(getattr(self.strategy, "weighted_by_key", "num-examples"))
        values = {**common, "committee": committee, "weighted-by": weight_key, "max-weight": self.max_weight}
        request = records.build_request(records.UPDATE, values)
        for message in sampled:
            message.content[records.RECORD] = request
        return sampled

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Add the masked updates, have the committee certify and unmask them, and give the inner strategy their mean."""
        opened, self._round = self._round, None
        if opened is None:
            return None, None
        good = opened.take_updates(replies)
        if not opened.goes_on(Phase.CHECK, server_round):
            return None, None
        announced = opened.published[RoundAnnounced]
        common = {
            "record": announced.record,
            "enrolment": announced.enrolment,
            "authority": self._authority.public_key,
            "committee": opened.published[CommitteePublished].committee,
            "headers": opened.headers,
            "manifest": opened.published[ManifestPublished].manifest,
        }
        for signed in self._ask_members(opened, records.CHECK, common):
            opened.receive(signed)
        if not opened.goes_on(Phase.SUM2, server_round):
            return None, None
        certified = {**common, "certificate": opened.published[CertificatePublished].certificate}
        for signed in self._ask_members(opened, records.SUM2, certified):
            opened.receive(signed)
        opened.end_stage()
        total = opened.published.get(TotalPublished)
        if total is None:
            _logger.warning("pet: round %d has no mean: %s", server_round, opened.failure)
            return None, None
        if total.wrong_slots:
            _logger.warning("pet: members %s sent wrong shares, which were left out", total.wrong_slots)
        reply = self._mean_reply(opened, total, good)
        arrays, metrics = self.strategy.aggregate_train(server_round, [reply])
        return (None if arrays is None else self._with_dtypes(arrays)), metrics

    def configure_evaluate(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> Iterable[Message]:
        """Do as the inner strategy does: evaluation is not masked."""
        messages: Iterable[Message] = self.strategy.configure_evaluate(server_round, arrays, config, grid)
        return messages

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Do as the inner strategy does."""
        return self.strategy.aggregate_evaluate(server_round, replies)

    # ---- who takes part -----------------------------------------------------------------------------------------------

    def _identify(self, grid: Grid, kind: str) -> None:
        """Ask nodes that are new who they are; without a pinned enrolment, enrol them all."""
        connected = set(grid.get_node_ids())
        new = connected - self._nodes.keys()
        identify = records.build_request(records.IDENTIFY, {})
        answers = self._ask(kind, dict.fromkeys(new, identify), lambda content: _bytes_of(content, "public-key"))
        self._nodes |= answers
        if self._pinned is None and (new or self._enrolment is None):
            self._enrol({node: key for node, key in self._nodes.items() if node in connected})

    def _enrol(self, nodes: Mapping[int, bytes]) -> None:
        """Enrol nodes: all may send updates, and some of them, drawn at random, are members."""
        keys = sorted(set(nodes.values()))
        if len(keys) < max(self.min_updates, 0 if self._plan is None else self._plan.member_count):
            return
        count = min(_OWN_MEMBERS, len(keys))
        plan = self._plan or Plan(groups=1, members=count, threshold=count // 2 + 1, quorum=count - (count > 3))
        drawn = secrets.SystemRandom().sample(keys, plan.member_count)
        self._version += 1
        self._enrolment = Enrolment(
            version=self._version,
            plan=plan,
            min_updates=self.min_updates,
            members=tuple(drawn),
            participants=tuple(keys),
        )

    def _served(self, enrolment: Enrolment) -> bytes:
        if self._pinned is None:
            return enrolment.sign(self._authority)
        return enrolment.to_bytes() + self._signature

    def _lists(self, enrolment: Enrolment, node: int) -> bool:
        key = self._nodes.get(node)
        return key is not None and enrolment.lists_participant(key)

    # ---- rounds -------------------------------------------------------------------------------------------------------

    def _config(self, models: int) -> FieldConfig:
        values = FieldValues.F32 if self.field is Derivation.Z32 else FieldValues.F64
        return FieldConfig(self.field, values, models, self.bound)

    def _open_round(self, arrays: ArrayRecord, enrolment: Enrolment, kind: str, sampled: int) -> ServerRound:
        # Twice the models that can come, so that totals of rubbish are noticed.
        config = self._config(2 * max(sampled, enrolment.min_updates))
        layout = UpdateLayout.of(records.numpy_arrays(arrays), config)
        times = PhaseTimes(min_seconds=self.timeout, max_seconds=self.timeout)
        settings = Pet1Settings(
            config=config,
            model_length=layout.length,
            served_enrolment=self._served(enrolment),
            min_updates=self.min_updates,
            min_count=self.min_updates,
            max_count=sampled,
            model_digest=digest("pet-1 model", layout.base_bytes()),
            sum=times,
            update=times,
            check=times,
            sum2=times,
        )
        number = max(int(time.time()), self._last_number + 1)
        self._last_number = number
        machine = Pet1Coordinator(settings, now_seconds=0.0, entropy=os.urandom, round_id=number - 1)
        opened = ServerRound(machine=machine, layout=layout, kind=kind, stage_seconds=self.timeout)
        machine.advance_time(0.0)
        opened.collect()
        return opened

    # ---- what the inner strategy gets ---------------------------------------------------------------------------------

    def _mean_reply(self, opened: ServerRound, total: TotalPublished, sample: RecordDict | None) -> Message:
        assert sample is not None, "a total has updates"
        answer = sample.config_records[records.RECORD]
        names, arrays_key, metrics_key = answer["metrics"], str(answer["arrays-key"]), str(answer["metrics-key"])
        arrays, metrics = opened.layout.decode(total.model.to_array(np.float64), list(names))
        ordered = ArrayRecord({name: Array(np.asarray(arrays[name], order="C")) for name in self._base})
        weight_key = str(getattr(self.strategy, "weighted_by_key", "num-examples"))
        examples = total.model.scalar_sum * Fraction(self.max_weight)
        numbers = MetricRecord({**metrics, weight_key: float(examples)})
        node = next(iter(self._nodes))
        asked = Message(RecordDict(), dst_node_id=node, message_type=opened.kind)
        return Message(RecordDict({arrays_key: ordered, metrics_key: numbers}), reply_to=asked)

    def _with_dtypes(self, arrays: ArrayRecord) -> ArrayRecord:
        """Give integers their dtype back, which Flower's own mean turns into floats."""
        kept = {}
        for name, array in arrays.items():
            values, base = array.numpy(), self._base[name].numpy() if name in self._base else None
            if base is not None and base.dtype.kind in "biu" and values.dtype != base.dtype:
                array = Array(np.asarray(np.rint(values), base.dtype))
            kept[name] = array
        return ArrayRecord(kept)

    # ---- messages -----------------------------------------------------------------------------------------------------

    def _ask_members(self, opened: ServerRound, stage: records.Stage, values: Mapping[str, Any]) -> list[bytes]:
        """Return the signed messages of the members that answered."""
        assert self._enrolment is not None, "a round is open"
        by_key = {key: node for node, key in self._nodes.items()}
        nodes = [by_key[key] for key in self._enrolment.members if key in by_key]
        request = records.build_request(stage, values)

        def read(content: RecordDict) -> bytes:
            return records.read_large(content, "message")[0] if stage is records.SUM2 else _bytes_of(content, "message")

        return list(self._ask(opened.kind, dict.fromkeys(nodes, request), read).values())

    def _ask(self, kind: str, requests: Mapping[int, ConfigRecord], read: Callable[[RecordDict], bytes]) -> dict[int, bytes]:
        """Return by node what could be read of its answer; nodes without one are left out."""
        messages = [
            Message(RecordDict({records.RECORD: request}), dst_node_id=node, message_type=kind)
            for node, request in requests.items()
        ]
        answers = {}
        for answer in self._grid.send_and_receive(messages, timeout=self.timeout) if messages else ():
            node = answer.metadata.src_node_id
            try:
                if answer.has_error():
                    _logger.warning("pet: node %d: %s", node, answer.error.reason)
                else:
                    answers[node] = read(answer.content)
            except RemoteProtocolError as error:
                _logger.warning("pet: node %d: %s", node, error)
        return answers


def _shown_type(value: object) -> str:
    """Return where a value's type comes from: Flower has two of most names."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _bytes_of(content: RecordDict, name: str) -> bytes:
    value = records.read_answer(content, {name: bytes})[name]
    assert isinstance(value, bytes), "the type was asked for"
    return value
