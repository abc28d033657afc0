"""What a server could try: nodes with pins give it nothing but sums; without pins, what the sentence at the start says."""

import logging

import numpy as np
import pytest

pytest.importorskip("flwr", reason="without Flower (.ci/run runs these tests in an environment that has it)")

from digits_app import initial_arrays, make_app
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp.strategy import FedAvg, FedMedian, Krum
from local_grid import LocalGrid, over_the_wire, stage_of

from pet.coordinator.key_file import create_key_file
from pet.crypto import SigningKeyPair
from pet.errors import ConfigError
from pet.flower import PetMod, SecureAggregation, pet_mod
from pet.pet1.enrolment import Enrolment
from pet.plan import Plan

COUNT = 6


class Federation:
    """Six nodes with key files, an authority, and an enrolment that it signed."""

    def __init__(self, folder, mod=pet_mod, min_updates=3, changed=lambda _node, message: message, pins=True):
        self.keys = [create_key_file(folder / f"node{index}") for index in range(COUNT)]
        self.authority = SigningKeyPair.generate()
        public = [key.public_key for key in self.keys]
        self.enrolment = Enrolment(
            version=1,
            plan=Plan(groups=1, members=5, threshold=3, quorum=4),
            min_updates=min_updates,
            members=tuple(public[:5]),
            participants=tuple(sorted(public)),
        )
        pinned = {"pet-authority": self.authority.public_key.hex()} if pins else {}
        configs = [
            {"partition-id": index, "num-partitions": COUNT, "pet-identity": str(folder / f"node{index}"), **pinned}
            for index in range(COUNT)
        ]
        self.grid = LocalGrid(make_app([mod]), configs, changed=changed)

    def strategy(self, authority=None, **options):
        wrapped = SecureAggregation(FedAvg(), max_weight=600, **options)
        # As from a file, whose keys the operators would have sent to the authority.
        wrapped._pinned = wrapped._enrolment = self.enrolment
        wrapped._signature = self.enrolment.sign(authority or self.authority)[-64:]
        return wrapped

    def run(self, strategy, rounds=1):
        arrays, found = initial_arrays(), []
        for number in range(1, rounds + 1):
            replies = self.grid.send_and_receive(strategy.configure_train(number, arrays, ConfigRecord(), self.grid))
            new, _ = strategy.aggregate_train(number, replies)
            arrays = new or arrays
            found.append(new)
        return found

    def ask(self, node, content):
        """Return what a node answers to the server's own message."""
        (answer,) = self.grid.send_and_receive([Message(RecordDict(content), dst_node_id=node, message_type="train")])
        return answer


def reasons(federation, stage):
    return [answer.error.reason for _, at, _, answer in federation.grid.answers if at == stage and answer.has_error()]


def test_pinned_nodes_take_part_over_several_rounds(tmp_path):
    federation = Federation(tmp_path)
    assert None not in federation.run(federation.strategy(), rounds=2)
    # What they signed is beside their keys, whether or not Flower's state is kept.
    for context in federation.grid.contexts.values():
        context.state.clear()
    assert federation.run(federation.strategy())[0] is not None or reasons(federation, "sum")
    assert (tmp_path / "node0.member").exists()
    assert (tmp_path / "node0.update-participant").exists()
    assert (tmp_path / "node0.member").stat().st_mode & 0o077 == 0


def test_a_server_without_the_strategy_gets_no_weights():
    grid = LocalGrid(make_app([pet_mod]), [{"partition-id": index, "num-partitions": 4} for index in range(4)])
    strategy = FedAvg()
    replies = list(grid.send_and_receive(strategy.configure_train(1, initial_arrays(), ConfigRecord(), grid)))
    assert len(replies) == 4
    assert all(reply.has_error() and "a request to train in the clear" in reply.error.reason for reply in replies)


def test_kinds_of_training_are_refused_in_the_clear_too():
    grid = LocalGrid(make_app([pet_mod]), [{"partition-id": 0, "num-partitions": 1}])
    (reply,) = grid.send_and_receive([Message(RecordDict(), dst_node_id=1000, message_type="train.more")])
    assert reply.has_error()


def test_an_enrolment_that_somebody_else_signed_is_refused(tmp_path):
    federation = Federation(tmp_path)
    assert federation.run(federation.strategy(authority=SigningKeyPair.generate())) == [None]
    assert len(reasons(federation, "sum")) == 5
    assert all("expected the pinned one" in reason for reason in reasons(federation, "sum"))
    assert "update" not in federation.grid.stages()


def test_a_server_that_enrols_itself_is_refused_by_pinned_nodes(tmp_path):
    federation = Federation(tmp_path)
    assert federation.run(SecureAggregation(FedAvg(), max_weight=600)) == [None]
    assert "update" not in federation.grid.stages()


def test_a_smaller_minimum_than_a_node_asks_for_is_refused(tmp_path):
    federation = Federation(tmp_path, mod=PetMod(least_updates=5))
    assert federation.run(federation.strategy()) == [None]
    assert all("expected sums of 5 or more updates" in reason for reason in reasons(federation, "sum"))
    assert "update" not in federation.grid.stages()


def test_a_weaker_committee_than_a_node_asks_for_is_refused(tmp_path):
    federation = Federation(tmp_path, mod=PetMod(least_active=4))
    assert federation.run(federation.strategy()) == [None]
    assert all("plan: expected passive 1, active 4" in reason for reason in reasons(federation, "sum"))


def captured(federation, stage):
    """Keep the messages of a stage as the nodes got them."""
    kept = {}

    def changed(node, message):
        if stage_of(message) == stage:
            kept[node] = over_the_wire(message).content
        return message

    federation.grid.changed = changed
    return kept


def test_nobody_trains_or_signs_twice_in_a_round(tmp_path):
    federation = Federation(tmp_path)
    trained = captured(federation, "update")
    assert federation.run(federation.strategy())[0] is not None
    federation.grid.changed = lambda _node, message: message
    answer = federation.ask(1000, trained[1000])
    assert answer.has_error()
    assert "expected a number above" in answer.error.reason


def without_the_last_update(manifest):
    """Return a manifest of one update less: its head has name, committee and count, its entries a key and a digest."""
    count = int.from_bytes(manifest[48:52], "little")
    return manifest[:48] + (count - 1).to_bytes(4, "little") + manifest[52:-64]


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("stage", ["check", "sum2"])
def test_a_member_certifies_and_unmasks_one_set(tmp_path, stage, restarted):
    """A server that leaves an update out, and asks again, would get the difference."""
    federation = Federation(tmp_path)
    kept = captured(federation, stage)
    strategy = federation.strategy()
    assert federation.run(strategy)[0] is not None
    (first,) = [answer for node, at, _, answer in federation.grid.answers if (node, at) == (1000, stage)]
    federation.grid.changed = lambda _node, message: message
    if restarted:
        federation.grid.app = make_app([PetMod()])
    content = kept[1000]
    record = dict(content["pet"])
    again = federation.ask(1000, {"pet": ConfigRecord(record)})
    assert not again.has_error()
    assert again.content == first.content, "the same again gets the same answer"
    record["manifest"] = without_the_last_update(record["manifest"])
    answer = federation.ask(1000, {"pet": ConfigRecord(record)})
    assert answer.has_error()
    assert "manifest: expected the one that was taken before" in answer.error.reason
    if stage == "sum2":
        certificate = bytearray(dict(content["pet"])["certificate"])
        certificate[-1] ^= 1
        changed = ConfigRecord({**dict(content["pet"]), "certificate": bytes(certificate)})
        assert federation.ask(1000, {"pet": changed}).has_error()


def test_everybody_starts_from_the_same_model(tmp_path):
    """A server that gives one node another model could read its change from the mean."""

    def changed(node, message):
        if stage_of(message) == "update" and node == 1005:
            arrays = {name: array.numpy() for name, array in message.content["arrays"].items()}
            arrays["w1"] = arrays["w1"] + 1
            other = ArrayRecord({name: Array(np.asarray(array)) for name, array in arrays.items()})
            return Message(RecordDict({**message.content, "arrays": other}), dst_node_id=node, message_type="train")
        return message

    federation = Federation(tmp_path, changed=changed)
    assert federation.run(federation.strategy())[0] is not None
    (reason,) = reasons(federation, "update")
    assert "expected the one that the round record names" in reason


def test_without_pins_the_first_authority_is_believed_for_the_run():
    grid = LocalGrid(make_app([pet_mod]), [{"partition-id": index, "num-partitions": 4} for index in range(4)])
    for strategy, is_believed in ((SecureAggregation(FedAvg(), max_weight=900), True), (SecureAggregation(FedAvg()), False)):
        replies = grid.send_and_receive(strategy.configure_train(1, initial_arrays(), ConfigRecord(), grid))
        assert (strategy.aggregate_train(1, replies)[0] is not None) == is_believed


def test_the_start_says_what_an_active_server_could_do(caplog, tmp_path):
    caplog.set_level(logging.INFO, "flwr")
    logging.getLogger("flwr").propagate = True
    SecureAggregation(FedAvg()).summary()
    assert "it could invent members and participants, and learn every update" in caplog.text
    caplog.clear()
    Federation(tmp_path).strategy().summary()
    assert "A single update can be read by any 3 of" in caplog.text


@pytest.mark.parametrize("strategy", [FedMedian, Krum], ids=lambda each: each.__name__)
def test_strategies_that_look_at_single_updates_are_refused(strategy):
    with pytest.raises(ConfigError, match=f"strategy: expected one that takes a weighted mean, got {strategy.__name__}"):
        SecureAggregation(strategy())


@pytest.mark.parametrize("options", [{"min_updates": 2}, {"timeout": 0}, {"timeout": 1.5}, {"min_updates": None}])
def test_numbers_that_cannot_be_are_refused(options):
    with pytest.raises(ConfigError, match=f"{next(iter(options))}: expected "):
        SecureAggregation(FedAvg(), **options)


def test_a_weight_above_the_largest_says_what_to_do():
    grid = LocalGrid(make_app([pet_mod]), [{"partition-id": index, "num-partitions": 4} for index in range(4)])
    strategy = SecureAggregation(FedAvg(), max_weight=10)
    replies = list(grid.send_and_receive(strategy.configure_train(1, initial_arrays(), ConfigRecord(), grid)))
    assert all(reply.has_error() and "SecureAggregation(max_weight=...)" in reply.error.reason for reply in replies)
    assert strategy.aggregate_train(1, replies) == (None, None)


def test_answers_that_are_no_answers_do_not_stop_the_round():
    """A node that sends rubbish at every stage costs its own update."""
    grid = LocalGrid(make_app([pet_mod]), [{"partition-id": index, "num-partitions": 6} for index in range(6)])
    honest = grid.app

    def app(message, context):
        answer = honest(message, context)
        if context.node_id == 1002 and not answer.has_error():
            stage = stage_of(message) if "pet" in message.content else "update"
            answer.content["pet"] = ConfigRecord({"message": b"rubbish", "public-key": bytes(32)} if stage else {})
        return answer

    grid.app = app
    strategy = SecureAggregation(FedAvg(), max_weight=600)
    replies = grid.send_and_receive(strategy.configure_train(1, initial_arrays(), ConfigRecord(), grid))
    arrays, _ = strategy.aggregate_train(1, replies)
    assert arrays is not None
