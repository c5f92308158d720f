"""From a model to the features of its layers, with a check on two examples that they are all of its derivative.

Policy. The model is in eval mode meanwhile. A parameter is *structured* if `calls` sees every use of it, its
examples lie along one axis, and on a test example the feature's norm is that of autograd's gradient. All other
parameters that require a gradient go by their Jacobian, which is exact for any operation.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from overparam.measure.calls import Recorder, Use
from overparam.measure.contraction import Factor, Outputs, factors, fill
from overparam.measure.features import Rows
from overparam.measure.problem import evaluating
from overparam.measure.refusals import refuse_non_finite, refuse_parameters
from overparam.precision import full_precision

AGREES = 1e-3  # relative: of a squared norm in float32
MIXING = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd, nn.modules.instancenorm._InstanceNorm)


@dataclass(frozen=True)
class Network:
    """A model as a function of its trainable parameters, and how the derivative of its outputs is had.

    `axes` gives for each use in a forward pass the axis of its examples, or None where it does not count; `by_jacobian`
    names the parameters without structure; `batched` says that all outputs are differentiated at once.
    """

    model: nn.Module
    trainable: dict[str, Tensor]
    fixed: dict[str, Tensor]
    axes: tuple[int | None, ...] = ()
    by_jacobian: tuple[str, ...] = ()
    batched: bool = True

    def outputs(self, x: Tensor, parameters: Mapping[str, Tensor] | None = None) -> Tensor:
        """(n, C); a model with one output per example may return (n,)."""
        found = functional_call(self.model, {**self.fixed, **self.trainable, **(parameters or {})}, (x,))
        if not isinstance(found, Tensor):
            raise TypeError(f"the model returns a {type(found).__name__}; wrap it so that it returns one tensor")
        found = found.unsqueeze(1) if found.ndim == 1 else found
        if found.ndim != 2 or len(found) != len(x):
            raise ValueError(
                f"the model returns shape {tuple(found.shape)} for {len(x)} inputs; a kernel needs outputs (N, C)"
            )
        return found

    def recorded(self, x: Tensor) -> tuple[Tensor, list[Use]]:
        with torch.enable_grad(), Recorder(self.trainable) as recorder:
            outputs = self.outputs(x)
        return outputs, recorder.uses

    def factors(self, x: Tensor, kind: Outputs) -> list[Factor]:
        """One factor per use of structured parameters, and one of all others together.

        Raises:
            RuntimeError: the model uses its parameters otherwise than on the first examples.
        """
        outputs, uses = self.recorded(x)
        if len(uses) != len(self.axes):
            raise RuntimeError(
                "the model runs other layers on these inputs than on the first: its layers depend on the values of its "
                "inputs, and such a model has no structure to follow"
            )
        counted = [(use, axis) for use, axis in zip(uses, self.axes, strict=True) if axis is not None]
        back = sensitivities(outputs, [use.tap for use, _ in counted], self.batched)
        found: list[Factor] = []
        for use, axis in counted:  # a layer's sensitivities are let go as soon as its factor is formed
            found += factors(use.feature(back.pop(0), axis, len(x)), kind)
        return [*found, *(factors(Rows(self.jacobian(x)), kind) if self.by_jacobian else [])]

    def jacobian(self, x: Tensor) -> Tensor:
        """Rows (n, C, q) of the parameters without structure, by automatic differentiation alone.

        `vmap` is not right for every operation, so that its last row is compared with one had without it.
        """
        last = self._rows(x[-1:])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # slow batching rules, which are still right
                rows = self._vmapped_rows(x)
            if torch.allclose(rows[-1], last, rtol=AGREES, atol=AGREES * float(last.abs().max())):
                return rows
        except (RuntimeError, ValueError):  # an operation that vmap does not know
            pass
        return torch.stack([*(self._rows(x[i : i + 1]) for i in range(len(x) - 1)), last])

    def _vmapped_rows(self, x: Tensor) -> Tensor:
        chosen = {name: self.trainable[name] for name in self.by_jacobian}
        one = jacrev(lambda parameters, row: self.outputs(row.unsqueeze(0), parameters)[0])
        found = vmap(one, in_dims=(None, 0))(chosen, x)
        return torch.cat([found[name].flatten(2) for name in chosen], dim=2)

    def _rows(self, x: Tensor) -> Tensor:
        """The rows (C, q) of one example."""
        leaves = {name: self.trainable[name].detach().requires_grad_() for name in self.by_jacobian}
        with torch.enable_grad():
            outputs = self.outputs(x, leaves)[0].unbind()
        return torch.stack([_flat_gradient(each, leaves) for each in outputs])


def _flat_gradient(output: Tensor, leaves: Mapping[str, Tensor]) -> Tensor:
    if not output.requires_grad:
        return torch.cat([torch.zeros_like(leaf).flatten() for leaf in leaves.values()])
    parts = torch.autograd.grad(output, tuple(leaves.values()), retain_graph=True, materialize_grads=True)
    return torch.cat([(part.to_dense() if part.is_sparse else part).flatten() for part in parts])


def sensitivities(outputs: Tensor, taps: Sequence[Tensor], batched: bool, keep: bool = False) -> list[Tensor]:
    """`∂f_c/∂tap`, (C, *tap) each; an example's outputs depend on its own part of a tap alone."""
    num_outputs = outputs.shape[1]
    if not taps:
        return []
    if not outputs.requires_grad:
        return [tap.new_zeros(num_outputs, *tap.shape) for tap in taps]
    units = torch.eye(num_outputs, dtype=outputs.dtype, device=outputs.device)
    if batched:
        each = units.unsqueeze(1).expand(-1, len(outputs), -1)
        found = torch.autograd.grad(
            outputs, list(taps), each, retain_graph=keep, is_grads_batched=True, materialize_grads=True
        )
        return list(found)
    rows = []
    for unit in units:
        each = unit.expand_as(outputs)
        rows.append(torch.autograd.grad(outputs, list(taps), each, retain_graph=True, materialize_grads=True))
    return [torch.stack(parts) for parts in zip(*rows, strict=True)]


@contextmanager
def differentiated(model: nn.Module, x: Tensor) -> Iterator[Network]:
    """The network of a model, planned on the first examples of x, with the model in eval mode meanwhile.

    Raises:
        ValueError: the model is in training mode where that mixes or draws, a weight is not finite, nothing requires a
            gradient, or an example's outputs change with the others in its batch.
    """
    refuse_training_mode(model)
    own = dict(model.named_parameters())
    trainable = {name: value.detach() for name, value in own.items() if value.requires_grad}
    if not trainable:
        raise ValueError("no parameter of the model requires a gradient: its tangent kernel is zero")
    refuse_parameters(own, None)
    everything = {**own, **dict(model.named_buffers())}
    refuse_non_finite(everything)
    fixed = {name: value.detach() for name, value in everything.items() if name not in trainable}
    with torch.inference_mode(False), torch.no_grad(), full_precision(), evaluating(model):
        yield planned(Network(model, trainable, fixed), x)


def refuse_training_mode(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if module.training and isinstance(module, MIXING):
            raise ValueError(
                f"{name or 'the model'} ({type(module).__name__}) is in training mode: the outputs depend on the batch "
                "or on chance, so that there is no kernel; call model.eval() first"
            )


def planned(network: Network, x: Tensor) -> Network:
    """Which uses are structured, by a comparison with autograd on the last of two examples."""
    pair, triple = x[[0, -1]], x[[0, -1, 0]]
    outputs, uses = network.recorded(pair)
    more, others = network.recorded(triple)
    _refuse_coupled(outputs.detach(), more[:2].detach())
    same = [use.names for use in uses] == [use.names for use in others]
    axes = [_axis(*both) if same else None for both in zip(uses, others, strict=False)]
    axes += [None] * (len(uses) - len(axes))
    back = _at_once(outputs, uses)
    network = replace(network, batched=back is not None)
    back = sensitivities(outputs, [use.tap for use in uses], batched=False) if back is None else back
    wrong = _wrong(_true_squares(network, pair), uses, axes, back)
    axes = [axis if not wrong & set(use.names) else None for use, axis in zip(uses, axes, strict=True)]
    return replace(network, axes=tuple(axes), by_jacobian=tuple(n for n in network.trainable if n in wrong))


def _refuse_coupled(outputs: Tensor, again: Tensor) -> None:
    apart, size = float((outputs - again).abs().max()), float(outputs.abs().max())
    if apart > float(torch.finfo(outputs.dtype).eps) ** (1 / 3) * size:
        raise ValueError(
            f"the outputs of an example change by up to {apart:.2g} with the others in its batch, or from pass to pass "
            "(batch norm without running statistics, dropout without `self.training`?): there is no kernel"
        )


def _axis(use: Use, other: Use) -> int | None:
    """The axis along which two and three examples differ in number, the same for input and output of the layer."""
    shapes = list(zip(use.tap.shape, other.tap.shape, strict=False))
    grown = [axis for axis, (two, three) in enumerate(shapes) if two != three]
    inside = [axis for axis, (two, three) in enumerate(zip(use.x.shape, other.x.shape, strict=False)) if two != three]
    if len(grown) != 1 or grown != inside or len(use.tap.shape) != len(other.tap.shape):
        return None
    two, three = shapes[grown[0]]
    return grown[0] if 3 * two == 2 * three else None


def _at_once(outputs: Tensor, uses: Sequence[Use]) -> list[Tensor] | None:
    """All outputs differentiated in one pass; None if an operation would fall back to a loop or fail."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return sensitivities(outputs, [use.tap for use in uses], batched=True, keep=True)
    except (RuntimeError, UserWarning):
        return None


def _wrong(
    squares: Mapping[str, float], uses: Sequence[Use], axes: Sequence[int | None], back: Sequence[Tensor]
) -> set[str]:
    """Parameters that are not structured: used twice or unseen, or with a norm that is not that of autograd."""
    names = [name for use in uses for name in use.names]
    wrong = {name for name in squares if names.count(name) != 1}
    total = sum(squares.values())
    for use, axis, s in zip(uses, axes, back, strict=True):
        found = None if axis is None else _square(use, s, axis)
        true = sum(squares[name] for name in use.names)
        if found is None or not abs(found - true) <= AGREES * true + 1e-6 * total:
            wrong |= set(use.names)
    while grown := {name for use in uses if wrong & set(use.names) for name in use.names} - wrong:
        wrong |= grown
    return wrong


def _cotangent(like: Tensor, size: int) -> Tensor:
    return torch.linspace(1.0, 2.0, size, dtype=like.dtype, device=like.device)


def _square(use: Use, sensitivity: Tensor, axis: int) -> float | None:
    """`‖Σ_c v_c ∂f_c/∂(W, b)‖²` of the last of two examples by the use's feature; None where it cannot be formed."""
    try:
        found = factors(use.feature(sensitivity, axis, 2), "full")
    except (RuntimeError, IndexError):  # a layout that no layer in here has
        return None
    size = len(sensitivity)
    cotangent = _cotangent(sensitivity, size)
    kernel = cotangent.new_empty(2 * size, 2 * size)
    fill(kernel, found, found, size, symmetric=True)
    return float(cotangent @ kernel[size:, size:] @ cotangent)


def _true_squares(network: Network, x: Tensor) -> dict[str, float]:
    """The same by autograd alone, per parameter."""
    leaves = {name: value.detach().requires_grad_() for name, value in network.trainable.items()}
    with torch.enable_grad():
        outputs = network.outputs(x, leaves)[1]
        output = outputs @ _cotangent(outputs, len(outputs))
    if not output.requires_grad:
        return dict.fromkeys(leaves, 0.0)
    parts = torch.autograd.grad(output, tuple(leaves.values()), materialize_grads=True)
    dense = (part.to_dense() if part.is_sparse else part for part in parts)
    return {name: float(torch.linalg.vector_norm(part)) ** 2 for name, part in zip(leaves, dense, strict=True)}
