"""A network's derivative by layers: features of its examples, checked against autograd on some of them.

No trust without a check. Whatever pieces of examples a kernel is made of, the features of up to `CHECKED` drawn ones
must give, along a random direction in their outputs, a derivative as long as autograd's on these examples alone.
Parameters that fail go by their Jacobian, which is had example by example and is exact for any operation.
"""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.func import jacrev, vmap

from overparam.foundations.torch_generators import torch_generator
from overparam.measure.kernels.layers.contraction import Factor, Outputs, factors
from overparam.measure.kernels.layers.features import Feature, Rows
from overparam.measure.kernels.layers.recording import Recorder, Use
from overparam.measure.problem.problem import Problem
from overparam.measure.problem.refusals import refuse_coupled

CHECKED = 32  # examples of a piece
COUPLED = "there is no kernel"
Names = tuple[str, ...]


class Unstructured(Exception):
    """Parameters that turned out not to have the structure of a layer."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = frozenset(names)
        super().__init__(*sorted(self.names))


@dataclass(frozen=True)
class Network:
    """A model as a function of its trainable parameters, and how the derivative of its outputs is had.

    `uses` names the parameters of each use in a forward pass, `axes` gives the axis of its examples, or None where it
    does not count; `by_jacobian` names the parameters without structure; `batched` says that all outputs are
    differentiated at once. `sample` holds two examples, `dtype` is that of the outputs.
    """

    problem: Problem
    trainable: dict[str, Tensor]
    sample: Tensor
    num_outputs: int = 0
    dtype: torch.dtype = torch.float32
    uses: tuple[Names, ...] = ()
    axes: tuple[int | None, ...] = ()
    by_jacobian: Names = ()
    batched: bool = True

    def outputs(self, x: Tensor, parameters: Mapping[str, Tensor] | None = None) -> Tensor:
        """(n, C), in the precision of the weights; a model with one output per example may return (n,)."""
        found = self.problem.outputs({**self.trainable, **(parameters or {})}, x).to(self.problem.theta.dtype)
        found = found.reshape(len(x), 1) if found.ndim == 1 or found.numel() == len(x) == 1 else found
        if found.ndim != 2 or len(found) != len(x):
            raise ValueError(
                f"the model returns shape {tuple(found.shape)} for {len(x)} inputs; a kernel needs outputs (N, C)"
            )
        return found

    @property
    def eps(self) -> float:
        """What outputs are good to: of their own precision, or of a coarser one that the model passes through."""
        return max(self.problem.eps, float(torch.finfo(self.dtype).eps))

    def recorded(self, x: Tensor) -> tuple[Tensor, list[Use]]:
        with torch.enable_grad(), Recorder(self.trainable) as recorder:
            outputs = self.outputs(x)
        return outputs, recorder.uses

    def counted(self, x: Tensor) -> tuple[Tensor, list[tuple[Use, int]]]:
        """The outputs, and the uses that count with the axis of their examples.

        Raises:
            Unstructured: other layers ran than in the plan: which do depends on the inputs or their number.
        """
        if not self.uses:
            return self.outputs(x), []
        outputs, uses = self.recorded(x)
        if tuple(use.names for use in uses) != self.uses:
            raise Unstructured(self.trainable)
        return outputs, [(use, axis) for use, axis in zip(uses, self.axes, strict=True) if axis is not None]

    def without(self, names: Iterable[str]) -> "Network":
        """The same with these parameters, and those that share a layer with them, by their Jacobian."""
        wrong = {*names, *self.by_jacobian}
        while grown := {name for use in self.uses if wrong & set(use) for name in use} - wrong:
            wrong |= grown
        by_jacobian = tuple(name for name in self.trainable if name in wrong)
        axes = tuple(None if wrong & set(use) else axis for use, axis in zip(self.uses, self.axes, strict=True))
        if any(axis is not None for axis in axes):
            return replace(self, axes=axes, by_jacobian=by_jacobian)
        return replace(self, uses=(), axes=(), by_jacobian=by_jacobian)

    def factors(self, x: Tensor, kind: Outputs) -> list[Factor]:
        """One factor per use of structured parameters, and one of all others together.

        Raises:
            Unstructured: a layer is not what it was taken for.
            ValueError: an example's outputs change with the others in its batch, or from pass to pass.
        """
        outputs, counted = self.counted(x)
        back = self._back(outputs, counted)
        chosen, cotangent = drawn(outputs)
        found: list[Factor] = []
        squares: dict[Names, float] = {}
        for use, axis in counted:  # a layer's sensitivities are let go as soon as its factor is formed
            part = back.pop(0)
            feature = feature_of(use, part, axis, len(x)) if isinstance(part, Tensor) else part
            formed = factors(feature, kind)
            squares[use.names] = sum(each.square_along(len(x), chosen, cotangent) for each in formed)
            found += formed
        self._check(x[chosen], outputs.detach()[chosen], cotangent, squares)
        return [*found, *(factors(Rows(self.jacobian(x)), kind) if self.by_jacobian else [])]

    def _back(self, outputs: Tensor, counted: Sequence[tuple[Use, int]]) -> list[Tensor | Rows]:
        """Sensitivities (C, *tap) of each use, or what is summed of them already."""
        taps = [use.tap for use, _ in counted]
        if self.batched:
            return [*sensitivities(outputs, taps)]
        found: list[Tensor | list[Tensor]] = [
            [] if use.summed else _by_examples(use.tap, outputs.shape[1]) for use, _ in counted
        ]
        for c, parts in enumerate(one_by_one(outputs, taps)):
            for (use, axis), whole, part in zip(counted, found, parts, strict=True):
                if isinstance(whole, Tensor):
                    whole[c] = part
                else:
                    (rows,) = feature_of(use, part.unsqueeze(0), axis, len(outputs)).rows()
                    whole.append(rows)
        return [whole if isinstance(whole, Tensor) else Rows(torch.cat(whole, dim=1)) for whole in found]

    def _check(self, x: Tensor, outputs: Tensor, cotangent: Tensor, squares: Mapping[Names, float]) -> None:
        """Outputs and squared lengths of derivatives against those by autograd alone.

        Outputs by halves, because they must be the same whoever is in an example's batch; then lengths in one pass,
        because a pass costs as much as the gradients of all weights are large.
        """
        leaves = {name: self.trainable[name].detach().requires_grad_() for names in squares for name in names}
        with torch.enable_grad():
            again = torch.cat([self.outputs(half, leaves).detach() for half in x.chunk(2)])
            refuse_coupled(outputs, again, COUPLED, self.problem.eps)
            along = (self.outputs(x, leaves) * cotangent).sum()
        true = _squared_lengths(along, leaves) if leaves and along.requires_grad else dict.fromkeys(leaves, 0.0)
        eps, total = self.eps, sum(true.values())
        wrong = [
            names
            for names, found in squares.items()
            if not abs(found - (here := sum(true[name] for name in names))) <= eps**0.6 * here + 10.0 * eps * total
        ]
        if wrong:
            raise Unstructured(name for names in wrong for name in names)

    def jacobian(self, x: Tensor) -> Tensor:
        """Rows (n, C, q) of the parameters without structure, by automatic differentiation alone.

        `vmap` is not right for every operation, so that its last row is compared with one had without it.
        """
        last = self._rows(x[-1:])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # slow batching rules, which are still right
                rows = self._vmapped_rows(x)
            near = self.eps**0.6
            if torch.allclose(rows[-1], last, rtol=near, atol=near * float(last.abs().max())):
                return rows
        except (RuntimeError, ValueError):  # an operation that vmap does not know
            pass
        return torch.stack([*(self._rows(x[i : i + 1]) for i in range(len(x) - 1)), last])

    def _vmapped_rows(self, x: Tensor) -> Tensor:
        chosen = {name: self.trainable[name] for name in self.by_jacobian}
        one = jacrev(lambda parameters, row: self.outputs(row.unsqueeze(0), parameters)[0])
        found, start = vmap(one, in_dims=(None, 0))(chosen, x), 0
        rows = x.new_empty(len(x), self.num_outputs, sum(value.numel() for value in chosen.values()), dtype=self.dtype)
        for name, value in chosen.items():  # each is let go as soon as it is copied
            rows[..., start : start + value.numel()] = found.pop(name).flatten(2)
            start += value.numel()
        return rows

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


def drawn(outputs: Tensor) -> tuple[Tensor | slice, Tensor]:
    """Which examples are checked, and along which direction (m, C)."""
    generator = torch_generator(0, "checked")
    chosen = torch.randperm(len(outputs), generator=generator, device="cpu")[:CHECKED].to(outputs.device)
    shape = (len(chosen), outputs.shape[1])
    cotangent = torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu").to(outputs)
    return (slice(None) if len(chosen) == len(outputs) else chosen), cotangent


def feature_of(use: Use, sensitivity: Tensor, axis: int, num_examples: int) -> Feature:
    """
    Raises:
        Unstructured: the examples do not lie as they did, or in a layout that no layer in here has.
    """
    try:
        return use.feature(sensitivity, axis, num_examples)
    except (RuntimeError, IndexError):
        raise Unstructured(use.names) from None


def _squared_lengths(output: Tensor, leaves: Mapping[str, Tensor]) -> dict[str, float]:
    parts = torch.autograd.grad(output, tuple(leaves.values()), materialize_grads=True)
    dense = (part.to_dense() if part.is_sparse else part for part in parts)
    return {name: float(torch.linalg.vector_norm(part)) ** 2 for name, part in zip(leaves, dense, strict=True)}


def sensitivities(outputs: Tensor, taps: Sequence[Tensor], keep: bool = False) -> list[Tensor]:
    """`∂f_c/∂tap`, (C, *tap) each; an example's outputs depend on its own part of a tap alone."""
    num_outputs = outputs.shape[1]
    if not taps or not outputs.requires_grad:
        return [tap.new_zeros(num_outputs, *tap.shape) for tap in taps]
    units = torch.eye(num_outputs, dtype=outputs.dtype, device=outputs.device).unsqueeze(1)
    each = units.expand(-1, len(outputs), -1)
    return list(
        torch.autograd.grad(outputs, list(taps), each, retain_graph=keep, is_grads_batched=True, materialize_grads=True)
    )


def one_by_one(outputs: Tensor, taps: Sequence[Tensor]) -> Iterator[Sequence[Tensor]]:
    """The same for one output after the other, *tap each."""
    for c in range(outputs.shape[1]):
        if not taps or not outputs.requires_grad:
            yield [torch.zeros_like(tap) for tap in taps]
        else:
            unit = torch.zeros_like(outputs)
            unit[:, c] = 1.0
            yield torch.autograd.grad(outputs, list(taps), unit, retain_graph=True, materialize_grads=True)


def _by_examples(tap: Tensor, num_outputs: int) -> Tensor:
    """Room for (C, *tap) in which the outputs of an example lie together, as they are multiplied."""
    lead = tap.shape[:1]
    return tap.new_empty(*lead, num_outputs, *tap.shape[1:]).movedim(len(lead), 0)
