"""A model on loan: in eval mode, in one arithmetic, and given back as it was."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.parameter import is_lazy

from overparam.foundations.global_generators import generators_kept
from overparam.foundations.precision import full_precision
from overparam.models.traces import Traces

NO_HOOKS = "the model saves activations by hooks; turn gradient checkpointing and offloading off to measure it"
BYTES = (torch.uint8, torch.bool)  # images as they are stored
BESIDE = ("aux_loss", "router_aux_loss", "router_z_loss")  # losses of a whole batch that a model adds to its outputs


@contextmanager
def borrowed(model: nn.Module) -> Iterator[nn.Module]:
    """The model itself, without wrappers, for as long as a measure looks at it.

    Meanwhile it is in eval mode; products are in the precision of their factors; attention goes by its formula with and
    without gradients; embeddings have dense gradients that nothing scales; compiled parts run as they are written.
    Afterwards, after an exception too, modes, attributes, hooks and tensors are the same objects with the same bits,
    and the global generators go on where they were.

    Raises:
        ValueError: it is no module, or one whose parameters have no values yet, or one that cannot be watched.
    """
    model = unwrapped(model)
    _refuse(model)
    traces = Traces.of(model)
    try:
        with (
            generators_kept(),
            torch.inference_mode(False),
            torch.enable_grad(),
            full_precision(),
            plain_attention(),
            _uncompiled(),
            _true_gradients(model),
        ):
            model.eval()
            yield model
    finally:
        traces.put_back()


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside data parallelism and compilation; each process has its own.

    >>> inside = nn.Linear(1, 1)
    >>> unwrapped(DataParallel(inside)) is inside
    True
    """
    while isinstance(model, nn.Module):
        if isinstance(model, DataParallel | DistributedDataParallel):
            model = model.module
        elif type(model).__name__ == "OptimizedModule" and "_orig_mod" in model._modules:
            model = model.get_submodule("_orig_mod")
        else:
            break
    return model


def _refuse(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise ValueError(f"the model is a {type(model).__name__}; allowed: a torch.nn.Module")
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise ValueError(
                f"{name or 'the model'} is a ScriptModule, whose weights cannot be replaced and whose operations "
                "cannot be watched; pass the torch.nn.Module that it was scripted or traced from"
            )
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(value):
            raise ValueError(f"{name} has no shape yet (a lazy module); run the model once on a batch first")
        if value.is_meta:
            raise ValueError(f"{name} is on the device meta and has no values; load weights first")


@contextmanager
def _true_gradients(model: nn.Module) -> Iterator[None]:
    """Without what embeddings do to their gradients for training's sake; the function is the same."""
    kinds = (nn.Embedding, nn.EmbeddingBag)
    found = [(each, each.sparse, each.scale_grad_by_freq) for each in model.modules() if isinstance(each, kinds)]
    try:
        for module, _, _ in found:
            module.sparse = module.scale_grad_by_freq = False
        yield
    finally:
        for module, sparse, scaled in found:
            module.sparse, module.scale_grad_by_freq = sparse, scaled


def _uncompiled() -> AbstractContextManager[Any]:
    """Compiled graphs let go of what a second derivative needs. There are none where the compiler is not loaded."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


@contextmanager
def plain_attention() -> Iterator[None]:
    """Attention by its formula: PyTorch's fused kernels have no second derivative, and its fast path, which it takes
    without gradients alone, has none at all and other outputs at padded places.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def in_words(x: Tensor) -> Iterator[None]:
    """Whatever a model of a caller's own raises on inputs x, as a sentence; inside transforms of PyTorch's as it is.

    Raises:
        ValueError: it fails.
    """
    try:
        yield
    except (ValueError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if torch._C._functorch.peek_interpreter_stack() is not None:
            raise
        said = (str(error).splitlines() or [""])[0]
        if said == NO_HOOKS:
            raise ValueError(NO_HOOKS) from None
        remedy = "; bring the inputs to real numbers first, for instance x.float() / 255" if x.dtype in BYTES else ""
        what = f"the model fails on inputs {x.dtype} of shape {tuple(x.shape)}{remedy}"
        raise ValueError(f"{what}: {type(error).__name__}: {said}") from error


def tensor_of(outputs: object) -> Tensor:
    """The outputs as one tensor: themselves, or the `logits` of an object or a mapping.

    Raises:
        ValueError: there is no such tensor, or a loss of the whole batch comes with it.

    >>> tensor_of({"logits": torch.ones(1, 2)}).shape
    torch.Size([1, 2])
    """
    if isinstance(outputs, Tensor):
        return outputs
    for name in BESIDE:
        if _field(outputs, name) is not None:
            raise ValueError(
                f"the model returns {name} beside its outputs: a loss of the whole batch, so that its training loss is "
                "no mean over examples; turn it off (output_router_logits=False), or return the outputs alone"
            )
    found = _field(outputs, "logits")
    if isinstance(found, Tensor):
        return found
    raise ValueError(
        f"the model returns a {type(outputs).__name__}; allowed: one tensor, or an object or mapping whose logits are "
        "one; wrap the model in a module that returns the tensor to be measured"
    )


def _field(outputs: object, name: str) -> object:
    return outputs.get(name) if isinstance(outputs, Mapping) else getattr(outputs, name, None)
