"""PyTorch: modules and state_dicts as vectors, and back.

    from pet.adapters import torch as adapter

    weights, counts, packing = adapter.pack(model)
    adapter.load(model, packing, mean.to_array(), totals.to_array() / count)

Tensors on any device are copied to the CPU; tensors that are spread over processes (DTensor, as FSDP2 has them) are gathered,
which every process of the group must do together. Names lose what wrappers put into them (DistributedDataParallel,
torch.compile, FSDP, activation checkpoints), so that a wrapped model and a plain one pack alike. Tied tensors are packed once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import torch
from numpy.typing import DTypeLike, NDArray

from pet.adapters.framework_packing import FrameworkPacking
from pet.array_tree import show
from pet.errors import ModelError
from pet.packing import pack as pack_arrays

#: What wrappers put before or into the names of a model's tensors.
_WRAPPERS: Final = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
_PARALLEL: Final = "module."

#: What torch has and NumPy has not, with what holds it exactly.
_WIDENED: Final = {torch.bfloat16: torch.float32}

_Model: TypeAlias = "torch.nn.Module | Mapping[str, torch.Tensor]"


@dataclass(frozen=True, slots=True)
class TorchPacking(FrameworkPacking):
    """Where each tensor of a model lies in its two vectors, and what it was.

    Attributes:
        packing: that of the tensors' values.
        digest: as `Packing.digest`, with the dtypes that torch has.
    """

    digest: str
    _dtypes: dict[str, torch.dtype]

    def unpack(self, weights: NDArray[Any] | None = None, counts: NDArray[Any] | None = None) -> dict[str, torch.Tensor]:
        """Return the tensors by name, on the CPU, with their shapes, dtypes and ties.

        Args:
            weights: as for `Packing.unpack`.
            counts: as for `Packing.unpack`.

        Raises:
            ModelError: as `Packing.unpack`.
        """
        tensors: dict[int, torch.Tensor] = {}
        found = {}
        for name, array in self.packing.unpack(weights, counts).items():
            if id(array) not in tensors:
                tensors[id(array)] = _narrowed(torch.from_numpy(array), self._dtypes[name], name)
            found[name] = tensors[id(array)]
        return found


def pack(
    model: _Model, *, trainable_only: bool = False, dtype: DTypeLike | None = None
) -> tuple[NDArray[Any], NDArray[Any], TorchPacking]:
    """Pack a model into a vector of weights and a vector of counts.

    Args:
        model: a module, of which its `state_dict()` is taken (parameters and persistent buffers), or a dictionary of tensors.
        trainable_only: of a module, only the parameters that require gradients: no buffers, and of a model with adapters
            (PEFT, LoRA) only those.
        dtype: as for `pet.pack`.

    Returns:
        Weights, counts, and what unpacks them.

    Raises:
        ModelError: something else; `trainable_only` for a dictionary; names that are equal without what wrappers put into them;
            values that are no dense tensors of a dtype that `pet.pack` takes; nothing to pack.
    """
    arrays: dict[str, NDArray[Any]] = {}
    dtypes: dict[str, torch.dtype] = {}
    converted: dict[object, NDArray[Any]] = {}
    for name, tensor in _tensors(model, trainable_only).items():
        identity = _identity(tensor)
        if identity not in converted:
            converted[identity] = _to_array(tensor, name)
        arrays[name] = converted[identity]
        dtypes[name] = tensor.dtype
    weights, counts, packing = pack_arrays(arrays, dtype=dtype)
    described = ascii((packing.digest, sorted((name, str(each)) for name, each in dtypes.items())))
    digest = hashlib.sha256(described.encode()).hexdigest()[:16]
    return weights, counts, TorchPacking(packing, digest, dtypes)


def load(model: _Model, packing: TorchPacking, weights: NDArray[Any] | None = None, counts: NDArray[Any] | None = None) -> None:
    """Put vectors into a model, in place, whatever device its tensors are on.

    Args:
        model: a module or a dictionary of tensors, with at least the tensors that were packed.
        packing: of a model with the same names, shapes and dtypes.
        weights: as for `Packing.unpack`.
        counts: as for `Packing.unpack`.

    Raises:
        ModelError: as `Packing.unpack`; a tensor is missing, or has another shape or dtype. Nothing has changed then.
    """
    own = _tensors(model, trainable_only=False)
    new = packing.unpack(weights, counts)
    for name, tensor in new.items():
        if name not in own:
            raise ModelError(f"model: expected a tensor {show((name,))}, got none of that name")
        if own[name].shape != tensor.shape or own[name].dtype != tensor.dtype:
            expected, got = (f"{each.dtype} of shape {tuple(each.shape)}" for each in (tensor, own[name]))
            raise ModelError(f"tensor {show((name,))}: expected {expected}, got {got}")
    with torch.no_grad():
        for name, tensor in new.items():
            own[name].copy_(_spread_like(tensor, own[name]))


def _tensors(model: object, trainable_only: bool) -> dict[str, torch.Tensor]:
    """Return the tensors of a model by their names without wrappers."""
    if isinstance(model, torch.nn.Module):
        state: Mapping[str, Any] = model.state_dict()
        if trainable_only:
            trained = {name for name, parameter in model.named_parameters(remove_duplicate=False) if parameter.requires_grad}
            state = {name: tensor for name, tensor in state.items() if name in trained}
    elif isinstance(model, Mapping) and all(isinstance(name, str) for name in model):
        if trainable_only:
            raise ModelError("trainable_only: expected a module, which knows what is trained, got a dictionary")
        state = model
    else:
        raise ModelError(f"model: expected a torch.nn.Module or a dictionary of tensors, got {type(model).__name__}")
    plain_names = list(map(_without_wrappers, state))
    if plain_names and all(name.startswith(_PARALLEL) for name in plain_names):
        plain_names = [name.removeprefix(_PARALLEL) for name in plain_names]
    found: dict[str, torch.Tensor] = {}
    for (name, value), plain in zip(state.items(), plain_names, strict=True):
        if plain in found:
            raise ModelError(f"model: expected different names, got {show((plain,))} twice")
        if not isinstance(value, torch.Tensor):
            raise ModelError(f"{show((name,))}: expected a tensor, got {type(value).__name__}: leave it out of the dictionary")
        found[plain] = value
    return found


def _without_wrappers(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def _identity(tensor: torch.Tensor) -> object:
    """Return what two tensors with the same memory have in common; a tensor without elements has nothing."""
    local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    if local.layout is not torch.strided or local.is_meta or local.numel() == 0:
        return object()
    return local.device, local.data_ptr(), tuple(local.shape), local.stride(), local.dtype


def _to_array(tensor: torch.Tensor, name: str) -> NDArray[Any]:
    """Return the values of a tensor; of bfloat16 in float32."""
    if tensor.layout is not torch.strided or tensor.is_meta or tensor.is_quantized:
        kind = "one without memory (meta)" if tensor.is_meta else f"{tensor.dtype}, {tensor.layout}"
        raise ModelError(f"tensor {show((name,))}: expected a dense tensor, got {kind}")
    whole = tensor.detach()
    if hasattr(whole, "full_tensor"):
        whole = whole.full_tensor()  # gathered from all processes
    try:
        array: NDArray[Any] = whole.to(_WIDENED.get(whole.dtype, whole.dtype)).resolve_conj().resolve_neg().cpu().numpy()
    except (TypeError, RuntimeError) as error:
        raise ModelError(f"tensor {show((name,))}: expected a dtype that NumPy has, or bfloat16, got {tensor.dtype}") from error
    return array


def _narrowed(tensor: torch.Tensor, dtype: torch.dtype, name: str) -> torch.Tensor:
    """Return a tensor in the dtype that it had."""
    if tensor.dtype == dtype:
        return tensor
    narrowed = tensor.to(dtype)
    if (narrowed.isinf() & ~tensor.isinf()).any():
        raise ModelError(f"tensor {show((name,))}: expected weights within {dtype}, got larger ones")
    return narrowed


def _spread_like(tensor: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Return a whole tensor spread over the processes as another one is."""
    if not hasattr(own, "to_local"):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(own.device), own.device_mesh, own.placements)
