"""Pairs of features that a few rows could be solved from stay at their peer, in total and between versions."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nats_broker import run
from peer_driver import federation, pulse, synchronise, until

from pet.errors import FederationStateError, FederationValueError, StateError, StatisticsError
from pet.federation import Feature, Kind, Schema, Statistics, correlation, covariance, linear_regression, univariate
from pet.federation.peer.local_project import LocalProject

#: attributes + 5 = 8
SCHEMA = Schema((Feature(name="a", scale=2), Feature(name="b", kind=Kind.BINARY), Feature(name="c", scale=2)), has_missing=True)
LEAST = SCHEMA.least_rows
AB, AC, BC = 0, 1, 2


class Store:
    """The blobs of one peer."""

    def __init__(self):
        self.states = {}

    def save_state(self, name, state):
        self.states[name] = state

    def load_state(self, name):
        return self.states.get(name)

    def save_change(self, name, state, done, *, is_empty):
        self.states[name] = state

    def done_request(self, request):
        """Return nothing: no request is repeated here."""

    def last_change(self, digest):
        """Return nothing: as above."""

    def times_learned(self, digest):
        return 0

    def learned_tables(self):
        return 0


def rows(count, *, seed=0, without=()):
    random = np.random.default_rng(seed)
    found = {"a": random.normal(size=count), "b": (random.random(count) < 0.5).astype(float), "c": random.normal(size=count)}
    return found | {name: np.full(count, np.nan) for name in without}


def left_out(statistics):
    return statistics.values[statistics.schema.layout.pairs_left_out].astype(bool)


def shared(project):
    return project._shared_pairs.share(*project.versioned_snapshot())


@pytest.mark.parametrize("alone", [0, 1, LEAST - 1, LEAST, 3 * LEAST])
@pytest.mark.parametrize(("without", "affected"), [("a", [AB, AC]), ("b", [AB, BC]), ("c", [AC, BC])])
def test_a_pair_is_left_out_if_a_few_rows_have_one_value_without_the_other(alone, without, affected):
    project = LocalProject(Store(), SCHEMA)
    project.learn(rows(50))
    if alone:
        project.learn(rows(alone, seed=1, without=[without]))
    statistics = shared(project)
    is_few = 0 < alone < LEAST
    assert np.flatnonzero(left_out(statistics)).tolist() == (affected if is_few else [])
    values, layout = statistics.values, SCHEMA.layout
    for block in layout.pair_blocks:
        assert (values[block][left_out(statistics)] == 0).all()
    assert (values[layout.conditional_squares] == 0).tolist() == left_out(statistics)[[AB, BC]].tolist()
    for name in SCHEMA.names:
        assert univariate(statistics, name).count == 50 + alone - (name == without) * alone
    assert left_out(project.snapshot()).sum() == 0, "what is at the peer stays whole"


@pytest.mark.parametrize("is_masked", [False, True])
@pytest.mark.parametrize("joint", [0, 1, LEAST - 1, LEAST])
def test_a_pair_is_left_out_if_few_rows_have_both_and_a_peer_shows_them_alone(joint, is_masked):
    project = LocalProject(Store(), SCHEMA, is_masked=is_masked)
    for without in ("a", "b"):
        project.learn(rows(50, without=[without]))
    if joint:
        project.learn(rows(joint, seed=1))
    assert left_out(shared(project))[AB] == (0 < joint < LEAST and not is_masked)


def test_a_pair_is_left_out_while_a_few_rows_changed_since_any_version_that_was_shared():
    store = Store()
    project = LocalProject(store, SCHEMA, is_masked=True)
    project.learn(rows(50))
    project.learn(alone := rows(20, seed=1, without=["c"]))
    assert not left_out(shared(project)).any()
    project.learn(rows(50, seed=2))
    project.learn(rows(1, seed=3, without=["c"]))
    changed = shared(project)
    assert np.flatnonzero(left_out(changed)).tolist() == [AC, BC]
    project.learn(rows(LEAST - 1, seed=4, without=["c"]))
    project = LocalProject(store, SCHEMA, is_masked=True)  # a restart forgets nothing
    assert not left_out(shared(project)).any(), "8 more than at first; the version between did not show the pair"
    project.forget(alone)
    project.learn(rows(20, seed=5, without=["c"]))
    assert np.flatnonzero(left_out(shared(project))).tolist() == [AC, BC], "as many rows, but others"


def test_the_same_version_is_shared_alike_and_rows_forgotten_and_learned_again_change_nothing():
    project = LocalProject(Store(), SCHEMA)
    project.learn(rows(50))
    project.learn(alone := rows(20, seed=1, without=["a"]))
    first = shared(project)
    assert shared(project) == first
    project.forget(alone)
    project.learn({name: column[::-1] for name, column in alone.items()})
    assert not left_out(shared(project)).any()


def test_what_was_shared_in_a_format_of_another_version_is_refused_by_name():
    store = Store()
    project = LocalProject(store, SCHEMA)
    project.learn(rows(50))
    shared(project)
    name, saved = next((name, saved) for name, saved in store.states.items() if name.startswith("shared_pairs"))
    for broken, problem in ((saved[:4] + b"\2" + saved[5:], "got format 2"), (saved[:-1], "expected 3 pairs"), (b"", None)):
        store.states[name] = broken
        with pytest.raises(StateError, match=problem):
            shared(LocalProject(store, SCHEMA))


def test_a_schema_without_missing_values_shares_everything_and_remembers_nothing():
    store, schema = Store(), Schema(SCHEMA.features)
    project = LocalProject(store, schema)
    project.learn(rows(3))
    assert shared(project) == project.snapshot()
    assert set(store.states) == {"local", "digest_key"}


steps = st.lists(
    st.tuples(st.sampled_from(["learn", "forget", "share"]), st.integers(1, 12), st.sets(st.sampled_from("abc"), max_size=2)),
    min_size=3,
    max_size=14,
)


@given(steps, st.booleans())
@settings(max_examples=40, deadline=None)
def test_no_difference_of_what_was_shared_is_made_of_a_few_rows(steps, is_masked):
    """An attacker who takes any two versions of a pair, or a pair and its features, gets sums of nothing or of enough rows."""
    project, table, seen = LocalProject(Store(), SCHEMA, is_masked=is_masked), [], []
    for seed, (what, count, without) in enumerate(steps):
        batch = (rows(count, seed=seed, without=without), frozenset(without), count, seed)
        if what == "learn":
            project.learn(batch[0])
            table.append(batch)
        elif what == "forget" and table:
            project.forget(table.pop(count % len(table))[0])
        elif what == "share":
            seen.append((left_out(shared(project)), list(table)))
    for pair, (first, second) in enumerate(itertools.combinations("abc", 2)):
        shown = [held for is_out, held in seen if not is_out[pair]]
        alone = [((first,), (second,)), ((second,), (first,))]
        for has, lacks in alone if is_masked else [*alone, ((first, second), ())]:
            sets = [
                {(seed, i) for _, gone, n, seed in held for i in range(n) if not gone & {*has} and gone >= {*lacks}}
                for held in shown
            ]
            for one, other in itertools.product([set(), *sets], sets):
                assert not 0 < len(one ^ other) < LEAST


def test_a_federation_says_how_many_peers_left_a_pair_out_and_is_pandas_over_the_rest(broker, tmp_path):
    def parts():
        for seed, (alone, without) in enumerate(((0, ""), (2, "c"), (30, "c"), (3, "a"))):
            part = rows(60, seed=seed)
            more = rows(alone, seed=10 + seed, without=[without] if without else ())
            yield {name: np.concatenate([part[name], more[name]]) for name in part}

    async def work(uses_smpc):
        tables = list(parts())
        async with federation(
            broker.url, tmp_path / str(uses_smpc), 4, schema=SCHEMA.to_json(), uses_smpc=uses_smpc
        ) as started:
            for node, table in zip(started.nodes, tables, strict=True):
                node.peer.local_project.learn(table)
            await pulse(started)
            if uses_smpc:
                await synchronise(started)
            else:
                for node in started.nodes:
                    node.peer._syncs.pulse.beat_now()
                await until(lambda: all(_has_all(node, 275) for node in started.nodes))
            for node in started.nodes:
                require_pandas(node.peer.federated_project.snapshot(), tables)

    run(work(uses_smpc=True))
    run(work(uses_smpc=False))


def _has_all(node, count):
    try:
        return node.peer.federated_project.row_count == count
    except FederationStateError:  # nothing was merged yet
        return False


def require_pandas(merged, tables):
    left = {("a", "b"): {3}, ("a", "c"): {1, 3}, ("b", "c"): {1}}
    found = covariance(merged, unbiased=True)
    for pair, peers in left.items():
        rest = pd.concat([pd.DataFrame(table) for i, table in enumerate(tables) if i not in peers])
        i, j = (SCHEMA.index(name) for name in pair)
        assert found.peers_left_out[i, j] == len(peers)
        assert found[i, j] == pytest.approx(rest[list(pair)].cov().iloc[0, 1], rel=1e-9)
        assert correlation(merged)[i, j] == pytest.approx(rest[list(pair)].corr().iloc[0, 1], rel=1e-9)
    pooled = pd.concat(map(pd.DataFrame, tables))
    assert univariate(merged, "c").mean == pytest.approx(pooled["c"].mean(), rel=1e-9)
    with pytest.raises(StatisticsError, match="got 2 that left a pair out"):
        linear_regression(merged, "a", ["c"])


def test_a_stored_federation_with_sums_of_another_layout_is_refused_by_name(broker, tmp_path):
    async def work():
        schema = SCHEMA.to_json().replace('"layout":2,', "")  # as versions without the sums of pairs wrote it
        async with federation(broker.url, tmp_path, schema=schema):
            pass

    with pytest.raises(FederationValueError, match="got layout 1, of another version of pet"):
        run(work())


def test_statistics_with_more_rows_of_a_pair_than_of_a_feature_are_refused():
    statistics = Statistics.of(rows(20), SCHEMA)
    statistics._high[SCHEMA.layout.pair_counts] += 1
    with pytest.raises(StatisticsError, match="no more rows with two features"):
        statistics.validate()
