"""What `pet.federation` gives, and what importing it costs."""

import inspect

import fork_server
import pytest

import pet.federation

#: The leading parameters, without self; more may follow if they have defaults.
SIGNATURES = {
    "Client": ["url", "customer_id", "secret_key"],
    "Feature": ["name", "kind", "centre", "scale", "edges"],
    "Schema": ["features", "z_max", "max_rows", "has_missing"],
    "Statistics": ["schema"],
    "univariate": ["statistics", "name"],
    "covariance": ["statistics", "names"],
    "correlation": ["statistics", "names"],
    "linear_regression": ["statistics", "target", "features"],
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures(name):
    assert list(inspect.signature(getattr(pet.federation, name)).parameters)[: len(SIGNATURES[name])] == SIGNATURES[name]


def test_every_name_is_there_and_listed():
    assert set(SIGNATURES) < set(pet.federation.__all__)
    assert all(getattr(pet.federation, name) is not None for name in pet.federation.__all__)
    assert set(pet.federation.__all__) <= set(dir(pet.federation))
    with pytest.raises(AttributeError, match="no attribute 'Pandas'"):
        _ = pet.federation.Pandas


def test_importing_loads_what_is_used_and_no_more():
    code = (
        "import sys, pet.federation as f; own = lambda: {n for n in sys.modules if n.startswith('pet.federation.')};"
        "assert not own(), own(); f.univariate; assert 'pet.federation.statistics.analysis' in own();"
        "assert not {'httpx', 'nats', 'starlette', 'pandas', 'pydantic'} & sys.modules.keys()"
    )
    done = fork_server.run(code, imports=fork_server.WITHOUT_EXTRAS)
    assert done.returncode == 0, done.stderr
