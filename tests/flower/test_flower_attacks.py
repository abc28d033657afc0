"""What a server could try: nodes with pins give it nothing but sums; without pins, what the sentence at the start says."""

import logging
import os

import numpy as np
import pytest

pytest.importorskip("flwr", reason="without Flower (.ci/run runs these tests in an environment that has it)")

from digits import task
from digits_app import initial_arrays, make_app
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg, FedMedian, Krum
from local_grid import LocalGrid, over_the_wire, stage_of

from pet.coordinator.key_file import create_key_file
from pet.crypto import SigningKeyPair
from pet.errors import ConfigError
from pet.flower import PetMod, SecureAggregation, pet_mod
from pet.pet1.committee import Committee
from pet.pet1.enrolment import Enrolment
from pet.pet1.round_record import RoundRecord
from pet.pet1.share_header import ShareHeader, UpdateSecrets
from pet.plan import Plan

COUNT = 6


def as_toml(enrolment):
    """Return an enrolment as its operators write it; here all members participate."""
    plan = enrolment.plan
    lines = [f"version = {enrolment.version}", f"least_updates = {enrolment.min_updates}", "[plan]"]
    lines += [f"{name} = {getattr(plan, name)}" for name in ("groups", "members", "threshold", "quorum")]
    for key in enrolment.members:
        lines += ["[[members]]", f'name = "{key.hex()[:6]}"', f'key = "{key.hex()}"', "participates = true"]
    for key in set(enrolment.participants) - set(enrolment.members):
        lines += ["[[participants]]", f'name = "{key.hex()[:6]}"', f'key = "{key.hex()}"']
    return "\n".join(lines)


class Federation:
    """Six nodes with key files, an authority, and an enrolment that it signed."""

    def __init__(self, folder, mod=pet_mod, min_updates=3, changed=lambda _node, message: message, pin="authority"):
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
        self.pin, self.file = pin, folder / "enrolment.toml"
        self.file.write_text(as_toml(self.enrolment), encoding="utf-8")
        pins = {"authority": self.authority.public_key, "enrolment": self.enrolment.digest, None: None}
        pinned = {} if pin is None else {f"pet-{pin}": pins[pin].hex()}
        configs = [
            {"partition-id": index, "num-partitions": COUNT, "pet-identity": str(folder / f"node{index}"), **pinned}
            for index in range(COUNT)
        ]
        self.grid = LocalGrid(make_app([mod]), configs, changed=changed)

    def strategy(self, authority=None, **options):
        if self.pin is None:
            return SecureAggregation(FedAvg(), max_weight=600, plan=Plan(groups=1, members=6, threshold=4, quorum=5), **options)
        signature = self.enrolment.sign(authority or self.authority)[-64:]
        return SecureAggregation(FedAvg(), max_weight=600, enrolment=self.file, signature=signature, **options)

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


@pytest.mark.parametrize("pin", ["authority", "enrolment"])
def test_pinned_nodes_take_part_over_several_rounds(tmp_path, pin):
    federation = Federation(tmp_path, pin=pin)
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


@pytest.mark.parametrize("pin", ["authority", None])
def test_a_smaller_minimum_than_a_node_asks_for_is_refused(tmp_path, pin):
    federation = Federation(tmp_path, mod=PetMod(least_updates=5), pin=pin)
    assert federation.run(federation.strategy()) == [None]
    assert reasons(federation, "sum")
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


@pytest.mark.parametrize("pin", ["authority", None])
def test_nobody_trains_or_signs_twice_in_a_round(tmp_path, pin):
    federation = Federation(tmp_path, pin=pin)
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


def test_keys_of_a_round_before_are_refused(tmp_path):
    """A server that replays a round's record, with its points, would have them used for other updates."""
    federation = Federation(tmp_path)
    strategy, kept = federation.strategy(), {}
    for stage in ("sum", "check", "sum2"):
        kept[stage] = captured(federation, stage)
        assert federation.run(strategy)[0] is not None
    federation.grid.changed = lambda _node, message: message
    assert federation.run(strategy)[0] is not None
    for stage, contents in kept.items():
        answer = federation.ask(1000, contents[1000])
        assert answer.has_error(), stage
        assert "expected a number above" in answer.error.reason


def test_updates_of_the_server_are_none_of_an_enrolled_participant(tmp_path):
    """A server that fills the minimum up with updates of its own would subtract them from the mean."""
    federation = Federation(tmp_path)
    kept = captured(federation, "check")
    assert federation.run(federation.strategy())[0] is not None
    record = dict(kept[1000]["pet"])
    opened = RoundRecord.from_bytes(record["record"])
    committee = Committee.from_bytes(record["committee"], opened, federation.enrolment)
    own = ShareHeader.build(SigningKeyPair.generate(), committee, UpdateSecrets.from_random(os.urandom(96)), bytes(32))
    answer = federation.ask(1000, {"pet": ConfigRecord({**record, "headers": [own.data, *record["headers"][1:]]})})
    assert answer.has_error()
    assert "expected an enrolled participant, got another key" in answer.error.reason


def test_without_pins_a_server_that_invents_participants_learns_an_update():
    """What the sentence at the start says, and no more is claimed: two of three nodes are the server's own."""
    honest, before = make_app([pet_mod]), {name: array.numpy() for name, array in initial_arrays().items()}
    own = ClientApp(mods=[pet_mod])

    @own.train()
    def send_nothing(message, context):
        metrics = MetricRecord({"num-examples": 1, "train_loss": 0.0})
        return Message(RecordDict({"arrays": initial_arrays(), "metrics": metrics}), reply_to=message)

    grid = LocalGrid(honest, [{"partition-id": index, "num-partitions": 3} for index in range(3)])
    grid.app = lambda message, context: (honest if context.node_id == 1000 else own)(message, context)
    strategy = SecureAggregation(FedAvg(), max_weight=600)
    replies = grid.send_and_receive(strategy.configure_train(1, initial_arrays(), ConfigRecord({"server-round": 1}), grid))
    arrays, metrics = strategy.aggregate_train(1, replies)
    examples = metrics["num-examples"] if "num-examples" in metrics else len(task.rows_of(0, 3)) + 2
    alone = {name: array.numpy().copy() for name, array in initial_arrays().items()}
    task.fit(alone, task.PIXELS[task.rows_of(0, 3)], task.LABELS[task.rows_of(0, 3)], seed=1)
    learned = (arrays["w1"].numpy() - before["w1"]) * examples / (examples - 2)
    assert np.abs(learned - (alone["w1"] - before["w1"])).max() < 1e-6


@pytest.mark.parametrize(("restarted", "pin"), [(False, "authority"), (True, "authority"), (False, None)])
@pytest.mark.parametrize("stage", ["check", "sum2"])
def test_a_member_certifies_and_unmasks_one_set(tmp_path, stage, restarted, pin):
    """A server that leaves an update out, and asks again, would get the difference."""
    federation = Federation(tmp_path, pin=pin)
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


def test_strategies_of_the_old_api_are_named():
    from flwr.server.strategy import FedAvg as Legacy

    with pytest.raises(ConfigError, match=r"expected one of flwr.serverapp.strategy, got flwr.server.strategy.fedavg.FedAvg"):
        SecureAggregation(Legacy())


@pytest.mark.parametrize(
    ("node_config", "message"),
    [
        ({"pet-identity": "/nowhere/node.key"}, "pet-identity: /nowhere/node.key"),
        ({"pet-identity": "{folder}/enrolment.toml"}, "pet-identity: "),
        ({"pet-authority": "ab" * 32}, "pet-identity: expected a key file, whose key the pinned enrolment lists, got none"),
        (
            {"pet-identity": "{folder}/node1", "pet-authority": "abc"},
            "pet-authority: expected 64 hexadecimal digits, got 3 char",
        ),
        ({"pet-identity": "{folder}/node1", "pet-autority": "ab" * 32}, "node config: expected pet-identity, pet-authority, "),
        ({"pet_identity": "{folder}/node1"}, "node config: expected pet-identity, pet-authority, pet-enrolment, got 'pet_id"),
    ],
)
def test_a_wrong_node_config_is_named_and_nothing_is_trained(tmp_path, node_config, message):
    federation = Federation(tmp_path)
    filled = {name: value.format(folder=tmp_path) for name, value in node_config.items()}
    federation.grid.contexts[1000].node_config = {"partition-id": 0, "num-partitions": COUNT, **filled}
    federation.run(federation.strategy())
    answers = [answer for node, _, _, answer in federation.grid.answers if node == 1000]
    assert answers
    assert all(answer.has_error() and message in answer.error.reason for answer in answers)


def test_the_environment_pins_where_somebody_else_writes_the_node_config(tmp_path, monkeypatch):
    federation = Federation(tmp_path)
    monkeypatch.setenv("PET_FLOWER_IDENTITY", str(tmp_path / "node0"))
    monkeypatch.setenv("PET_FLOWER_AUTHORITY", SigningKeyPair.generate().public_key.hex())
    federation.grid.contexts[1000].node_config = {"partition-id": 0, "num-partitions": COUNT}
    federation.run(federation.strategy())
    (reason,) = reasons(federation, "sum")
    assert "expected the pinned one" in reason


@pytest.mark.parametrize(
    "options", [{"bound": 0}, {"field": "z16"}, {"min_updates": 2}, {"timeout": 0}, {"timeout": 1.5}, {"min_updates": None}]
)
def test_numbers_that_cannot_be_are_refused(options):
    named = {"field": "derivation"}.get(name := next(iter(options)), name)
    with pytest.raises(ConfigError, match=f"{named}: expected "):
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
