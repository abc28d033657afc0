"""Modules of PyTorch as vectors, and back, as adapters.md shows it. They run where torch is."""

import pickle
from collections import OrderedDict

import numpy as np
import pytest

import pet
from pet.errors import ModelError

torch = pytest.importorskip("torch", reason="without torch (.ci/run runs these tests in an environment that has it)")

from pet.adapters import torch as adapter  # noqa: E402 - it needs torch

CONFIGS = [pet.MaskConfig.parse("pet-1/z32,f32,bound=4,models=10"), pet.MaskConfig.parse("pet-1/z64,int,models=10")]
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


class Tied(torch.nn.Module):
    """Every dtype that is trained in, batch normalisation with its counter, and one matrix under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(7, 4)
        self.norm = torch.nn.BatchNorm1d(4)
        self.narrow = torch.nn.Linear(4, 3, dtype=torch.float16)
        self.brain = torch.nn.Linear(3, 5, dtype=torch.bfloat16)
        self.head = torch.nn.Linear(4, 7, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("seen", torch.tensor([True, False]))
        self.register_buffer("nothing", torch.zeros(0, 3))


def is_same(left, right) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and torch.equal(left.cpu(), right.cpu())


def model(seed=0):
    torch.manual_seed(seed)
    made = Tied()
    made.norm(made.embedding(torch.arange(7)))
    return made


def copied(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def test_a_module_comes_back_with_every_dtype_and_tie():
    trained = model()
    weights, counts, packing = adapter.pack(trained)
    assert (weights.dtype, weights.shape, counts.shape) == (np.float32, (packing.weight_count,), (packing.count_count,))
    state = trained.state_dict()
    floats = sum(tensor.numel() for tensor in state.values() if tensor.is_floating_point())
    assert packing.weight_count == floats - state["head.weight"].numel()
    for own in (packing, pickle.loads(pickle.dumps(packing))):
        back = own.unpack(weights, counts)
        assert sorted(back) == sorted(state)
        assert all(is_same(back[name], state[name]) for name in state)
        assert back["head.weight"] is back["embedding.weight"]
    other = model(1)
    assert not all(is_same(tensor, other.state_dict()[name]) for name, tensor in state.items())
    adapter.load(other, packing, weights, counts)
    assert all(is_same(tensor, other.state_dict()[name]) for name, tensor in state.items())
    assert other.head.weight is other.embedding.weight


def test_a_mean_of_masked_modules():
    models = [model(seed) for seed in range(3)]
    packed = [adapter.pack(each) for each in models]
    packing = packed[0][2]
    assert {each[2].digest for each in packed} == {packing.digest}
    total = pet.VectorAggregation(CONFIGS, [packing.weight_count, packing.count_count])
    all_seeds = []
    for weights, counts, _ in packed:
        seeds, masked = pet.mask_vectors([weights, counts], CONFIGS)
        total.add(masked)
        all_seeds.append(seeds)
    by_vector = zip(total.parts, zip(*all_seeds, strict=True), strict=True)
    mean, totals = total.unmask([pet.sum_masks(seeds, part.config, len(part)) for part, seeds in by_vector])
    target = model(9)
    adapter.load(target, packing, mean.to_array(), totals.to_array() / 3)
    for name, tensor in target.state_dict().items():
        exact = sum(each.state_dict()[name].double() for each in models) / 3
        allowed = {torch.float16: 2e-3, torch.bfloat16: 8e-3}.get(tensor.dtype, 1e-6 if tensor.is_floating_point() else 0.5)
        assert not tensor.numel() or (tensor.double() - exact).abs().max().item() <= allowed
    assert target.norm.num_batches_tracked.item() == 1


@pytest.mark.very_long  # torch's compiler takes ten seconds to import
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")  # its own, on import
def test_wrapped_and_plain_models_pack_alike():
    plain = model()
    weights, counts, packing = adapter.pack(plain)
    state = plain.state_dict()
    parallel = torch.nn.DataParallel(plain)
    for wrapped in (
        parallel,
        torch.compile(plain),
        parallel.state_dict(),
        torch.compile(parallel),
        OrderedDict((f"_fsdp_wrapped_module.{name}", tensor) for name, tensor in state.items()),
    ):
        again, again_counts, other = adapter.pack(wrapped)
        assert other.digest == packing.digest
        assert np.array_equal(again, weights)
        assert np.array_equal(again_counts, counts)
    adapter.load(parallel, packing, weights * 0, counts * 0)
    assert not plain.head.weight.any()


def test_a_part_of_a_model_may_be_called_module():
    named = torch.nn.Sequential(OrderedDict(module=torch.nn.Linear(1, 1), rest=torch.nn.Linear(1, 1)))
    weights, _, packing = adapter.pack(named)
    assert set(packing.unpack(weights)) == set(named.state_dict())


def test_only_what_is_trained():
    trained = model()
    for parameter in trained.narrow.parameters():
        parameter.requires_grad_(False)
    weights, counts, packing = adapter.pack(trained, trainable_only=True)
    assert not len(counts)
    names = set(packing.unpack(weights))
    assert names == {name for name, _ in trained.named_parameters(remove_duplicate=False)} - {"narrow.weight", "narrow.bias"}
    other = model(1)
    before = copied(other)
    adapter.load(other, packing, weights)
    for name, tensor in other.state_dict().items():
        assert is_same(tensor, (trained.state_dict() if name in names else before)[name])


def test_the_digest_covers_the_dtypes_of_torch():
    digests = {adapter.pack({"a": torch.ones(3, dtype=dtype)})[2].digest for dtype in DTYPES}
    assert len(digests) == len(DTYPES)
    one = torch.ones(3)
    assert adapter.pack({"a": one, "b": one})[2].digest != adapter.pack({"a": one, "b": one.clone()})[2].digest


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda: torch.ones(2, dtype=torch.complex64), "array 'a': expected float16, .* got complex64"),
        (lambda: torch.ones(2).to_sparse(), r"tensor 'a': expected a dense tensor, got torch.float32, torch.sparse_coo"),
        (lambda: torch.empty(2, device="meta"), r"tensor 'a': expected a dense tensor, got one without memory \(meta\)"),
        (lambda: torch.ones(2).to(torch.float8_e4m3fn), "tensor 'a': expected a dtype that NumPy has, or bfloat16, got "),
        (lambda: "extra", "'a': expected a tensor, got str: leave it out"),
    ],
    ids=["complex", "sparse", "meta", "float8", "text"],
)
def test_other_values_are_refused_by_name(value, message):
    with pytest.raises(ModelError, match=message):
        adapter.pack({"a": value()})


def test_models_that_do_not_fit_are_refused_whole():
    weights, counts, packing = adapter.pack(model())
    other = model(1)
    other.narrow = torch.nn.Linear(4, 2, dtype=torch.float16)
    before = copied(other)
    with pytest.raises(
        ModelError, match=r"'narrow.weight': expected torch.float16 of shape \(3, 4\), got .* of shape \(2, 4\)"
    ):
        adapter.load(other, packing, weights, counts)
    assert all(is_same(tensor, before[name]) for name, tensor in other.state_dict().items())
    del other.narrow
    with pytest.raises(ModelError, match=r"model: expected a tensor 'narrow.weight', got none of that name"):
        adapter.load(other, packing, weights, counts)
    assert all(is_same(tensor, before[name]) for name, tensor in other.state_dict().items())
    with pytest.raises(ModelError, match=r"tensor 'brain.bias': expected weights within torch.bfloat16, got larger ones"):
        packing.unpack(np.full_like(weights, 3.4e38) * (np.arange(len(weights)) < 5), counts)


@pytest.mark.parametrize("value", [None, [torch.ones(2)], {1: torch.ones(2)}, torch.ones(2)], ids=range(4))
def test_other_models_are_refused(value):
    with pytest.raises(ModelError, match=r"model: expected a torch.nn.Module or a dictionary of tensors, got "):
        adapter.pack(value)


def test_what_a_dictionary_cannot_say_is_refused():
    with pytest.raises(ModelError, match="trainable_only: expected a module, which knows what is trained, got a dictionary"):
        adapter.pack({}, trainable_only=True)
    with pytest.raises(ModelError, match="model: expected different names, got 'a' twice"):
        adapter.pack({"a": torch.ones(1), "_orig_mod.a": torch.ones(1)})


def test_tensors_of_a_sharded_model_are_gathered(tmp_path, monkeypatch):
    from torch.distributed import destroy_process_group, init_process_group
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    plain = model()
    weights, counts, packing = adapter.pack(plain)
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    try:
        sharded = model(1)
        fully_shard(sharded, mesh=init_device_mesh("cpu", (1,)))
        assert hasattr(sharded.narrow.weight, "full_tensor")
        adapter.load(sharded, packing, weights, counts)
        again, again_counts, other = adapter.pack(sharded)
        assert other.digest == packing.digest
        assert np.array_equal(again, weights)
        assert np.array_equal(again_counts, counts)
    finally:
        destroy_process_group()


@pytest.mark.very_long  # PEFT takes ten seconds to import
def test_adapters_of_peft():
    peft = pytest.importorskip("peft", reason="without peft (.ci/long runs these tests in an environment that has it)")
    base = torch.nn.Sequential(OrderedDict(first=torch.nn.Linear(6, 5), second=torch.nn.Linear(5, 2)))
    config = peft.LoraConfig(r=2, target_modules=["first"], modules_to_save=["second"])
    adapted = peft.get_peft_model(base, config)
    weights, counts, packing = adapter.pack(adapted, trainable_only=True)
    trained = {name: parameter for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert packing.weight_count == sum(parameter.numel() for parameter in trained.values()) == 2 * (6 + 5) + 5 * 2 + 2
    assert not len(counts)
    adapter.load(adapted, packing, np.arange(len(weights), dtype=np.float32))
    values = torch.cat([parameter.detach().reshape(-1) for parameter in trained.values()])
    assert sorted(values.tolist()) == list(range(len(weights)))
