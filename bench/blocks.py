"""Curvature products with 8 vectors at once, against one after the other.

python bench/blocks.py [--images 1000] [--repeats 5] [--threads 2] [--out blocks.json]
"""

import argparse
import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from overparam import CNN, MLP, DataSpec
from overparam.data.load import prepare
from overparam.foundations.torch_generators import torch_generator
from overparam.measure.problem import problem as problems
from overparam.measure.problem.opening import opened
from overparam.measure.products import operators
from overparam.measure.products.operators import CurvatureOperator
from overparam.models.build import build
from timing import environment, medians

VECTORS = 8


def blocks(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Products with 8 vectors in one traversal of the kept graphs, against one vector after the other."""
    rows: list[dict[str, Any]] = []
    dense: list[MLP | CNN] = [MLP(width=width) for width in (32, 128, 512)]
    for name, specs in {"digits": dense, "cifar10": [*dense, CNN(channels=options.channels)]}.items():
        split = prepare(DataSpec(name=name, subset="first"), data_dir=options.data_dir).train
        x, y = (torch.from_numpy(part[: options.images].copy()) for part in (split.x, split.y))
        for spec in specs:
            size = f"width {spec.width}" if isinstance(spec, MLP) else f"c={spec.channels}"
            model = build(spec, tuple(x.shape[1:]), 10, generator=torch_generator(0, "init")).eval()
            row = block_row(model, x, y, options.repeats)
            rows.append({"model": f"{spec.kind.upper()} {size}, {name}", **row})
            print(f"  {rows[-1]}", flush=True)
    print(f"\n| model | parameters | {VECTORS} one by one, s | at once, s | one by one / at once |")
    print("|---|---:|---:|---:|---:|")
    for row in rows:
        ratio = row["one_by_one"] / row["at_once"]
        seconds = f"{row['one_by_one']:.4f} | {row['at_once']:.4f}"
        print(f"| {row['model']} | {row['parameters']:,} | {seconds} | {ratio:.2f} |")
    return rows


def block_row(model: nn.Module, x: Tensor, y: Tensor, repeats: int) -> dict[str, float]:
    """At once: one traversal of PyTorch's own graphs, as the library's cheaper convolutions cannot be batched."""
    with opened(model, "cross_entropy", (x, y)) as problem:
        one = CurvatureOperator(problem)
    plain: dict[str, Any] = {
        "_blockwise": lambda product, problem, forms: product,
        "SecondOrder": lambda: nullcontext(SimpleNamespace(unbatched=0)),
    }
    with (
        mock.patch.multiple(operators, **plain),
        mock.patch.object(problems, "_laid_out", lambda problem: problem),  # channels last cannot be batched either
        opened(model, "cross_entropy", (x, y)) as problem,
    ):
        at_once = CurvatureOperator(problem)
    vectors = torch.randn(VECTORS, one.size, generator=torch_generator(0, "vectors"))
    each = torch.stack([one(vector) for vector in vectors])
    difference = float((at_once(vectors) - each).norm() / each.norm())
    assert difference < 1e-3, f"the two ways differ by {difference:.1e}"
    separate, block = medians([lambda: [one(vector) for vector in vectors], lambda: at_once(vectors)], 4 * repeats)
    return {"parameters": one.size, "one_by_one": separate, "at_once": block}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"channels": 8, "images": 1000, "repeats": 5, "threads": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--data-dir", type=Path, default=None, help="directory of data sets; default: OVERPARAM_DATA")
    parser.add_argument("--out", type=Path, default=None, help="JSON file for all figures")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    figures = {"environment": environment(options), "blocks": blocks(options)}
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
