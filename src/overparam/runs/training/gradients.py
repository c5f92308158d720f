"""The gradient of a batch: by autograd, or, for a plain ReLU network, by the same kernels called one by one.

Small networks spend more time in autograd's bookkeeping than in arithmetic. Both ways call the same ATen kernels with
the same operands in the same layout, so that weights agree in every bit; the tests hold them to that.
"""

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from overparam.models.losses import batch_mean
from overparam.specs.train import TrainSpec

Gradient = Callable[[Tensor, Tensor], Tensor]
MODULE_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
PARAMETER_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")


def kept_gradient(model: nn.Module, spec: TrainSpec) -> Callable[[], Gradient]:
    """→ the gradient of the model as it is now, made anew only after a caller has changed what it rests on."""
    parts = list(model.modules()), list(model.parameters())
    kept: list[tuple[list[object], Gradient]] = []

    def now() -> Gradient:
        if not kept or kept[0][0] != _basis(*parts):
            gradient = gradient_of(model, spec)
            kept[:] = [(_basis(*parts), gradient)]
        return kept[0][1]

    return now


def _basis(modules: list[nn.Module], parameters: list[nn.Parameter]) -> list[object]:
    """What a gradient rests on; an address is taken for as long as the gradient keeps the tensor that was there."""
    places = [(p.data_ptr(), p.grad is None or p.grad.data_ptr(), p.requires_grad) for p in parameters]
    return [*_hooks(modules, parameters), *places]


def _hooks(modules: Iterable[nn.Module], parameters: Iterable[nn.Parameter]) -> list[bool]:
    ours = [bool(getattr(module, name)) for module in modules for name in MODULE_HOOKS]
    return ours + [bool(getattr(parameter, name)) for parameter in parameters for name in PARAMETER_HOOKS]


def gradient_of(model: nn.Module, spec: TrainSpec) -> Gradient:
    """(x, y) → the loss of the batch, with the gradient left in each parameter's `.grad`."""
    layers = plain_layers(model) if spec.loss == "cross_entropy" and spec.lazy_scale is None else None
    return _by_autograd(model, spec) if layers is None else _one_by_one(layers)


def plain_layers(model: nn.Module) -> list[nn.Linear] | None:
    """Linear layers of `Flatten, Linear, ReLU, …, Linear`, or None for any other network, or one with hooks.

    None too where a layer has one unit: some processors then round a product by how its factors lie in memory.
    """
    if type(model) is not nn.Sequential or any(_hooks(model.modules(), model.parameters())):
        return None
    first, *rest = model
    linear = [each for each in rest[::2] if type(each) is nn.Linear and each.bias is not None]
    activations = [each for each in rest[1::2] if type(each) is nn.ReLU]
    wide = all(layer.out_features > 1 and layer.in_features > 1 for layer in linear)
    plain = wide and type(first) is nn.Flatten and len(linear) + len(activations) == len(rest) and len(rest) % 2 == 1
    parameters = list(model.parameters())  # each once, so that shared ones are missed
    return linear if plain and sum(p.requires_grad for p in parameters) == 2 * len(linear) else None


def _by_autograd(model: nn.Module, spec: TrainSpec) -> Gradient:
    def gradient(x: Tensor, y: Tensor) -> Tensor:
        model.zero_grad(set_to_none=True)
        loss = batch_mean(spec.loss, model(x), y)
        # Descended is the loss divided by α² where outputs are multiplied by α.
        scaled = loss if spec.lazy_scale is None else loss / spec.lazy_scale**2
        scaled.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    return gradient


def _one_by_one(layers: list[nn.Linear]) -> Gradient:
    by_size: dict[int, Gradient] = {}
    for parameter in (p for layer in layers for p in layer.parameters()):
        parameter.grad = torch.empty_like(parameter)

    def gradient(x: Tensor, y: Tensor) -> Tensor:
        if len(y) not in by_size:
            by_size[len(y)] = _of_size(layers, len(y))
        return by_size[len(y)](x.flatten(1), y)

    return gradient


def _of_size(layers: list[nn.Linear], n: int) -> Gradient:
    """For batches of n; `hidden[l]` and `back[l]` are a layer's outputs and the loss's derivatives in them."""
    weights, biases = ([getattr(layer, name).detach() for layer in layers] for name in ("weight", "bias"))
    grads = [(layer.weight.grad, layer.bias.grad) for layer in layers]
    hidden = [weights[0].new_empty(n, len(w)) for w in weights]
    back = [torch.empty_like(h) for h in hidden]
    columns, rows_back = [w.t() for w in weights], [b.t() for b in back]
    log_p, in_log_p = torch.empty_like(hidden[-1]), torch.empty_like(hidden[-1])
    one, total = log_p.new_ones(()), log_p.new_full((), float(n))
    last = len(layers) - 1
    pick, through_relu = torch.ops.aten.nll_loss_backward.grad_input, torch.ops.aten.threshold_backward.grad_input

    def forward(x: Tensor) -> Tensor:
        for i in range(last):
            x = torch.relu_(torch.addmm(biases[i], x, columns[i], out=hidden[i]))
        return torch.addmm(biases[last], x, columns[last], out=hidden[last])

    def gradient(x: Tensor, y: Tensor) -> Tensor:
        torch.log_softmax(forward(x), 1, out=log_p)
        pick(one, log_p, y, None, 1, -100, total, grad_input=in_log_p)
        torch._log_softmax_backward_data(in_log_p, log_p, 1, log_p.dtype, out=back[last])
        for i in range(last, -1, -1):
            in_weight, in_bias = grads[i]
            torch.mm(rows_back[i], hidden[i - 1] if i else x, out=in_weight)
            torch.sum(back[i], 0, out=in_bias)
            if i:
                torch.mm(back[i], weights[i], out=back[i - 1])
                through_relu(back[i - 1], hidden[i - 1], 0, grad_input=back[i - 1])
        return F.nll_loss(log_p, y)

    return gradient
