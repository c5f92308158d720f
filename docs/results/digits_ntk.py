"""Does the network of digits_mlp.py train as its tangent kernel would? Prints what the README shows.

python docs/results/digits_ntk.py
"""

import torch
from digits_mlp import SPEC

import overparam as op


def main() -> None:
    run = op.train(SPEC)
    start, end = run.model("init"), run.model()
    x, y = (part[:500] for part in run.data())
    before, after = op.empirical_ntk(start, x), op.empirical_ntk(end, x)
    labels = op.label_kernel(y)
    traces = [kernel.diagonal(dim1=2, dim2=3).mean(2) for kernel in (before, after)]
    alignment = [op.kernel_alignment(kernel, labels, centred=True) for kernel in traces]
    with torch.no_grad():
        moved, missed = end(x) - start(x), end(x) - op.linearize(start, x)(end)
    print(f"kernel of {len(x)} examples and 10 outputs: {tuple(before.shape)}")
    print(f"weights moved by {op.parameter_movement(start, end).relative:.2f} of their norm")
    print(f"kernel drift {op.kernel_drift(before, after):.1f}, distance {op.kernel_distance(before, after):.3f}")
    print(f"alignment with the labels {alignment[0]:.3f} before, {alignment[1]:.3f} after")
    print(f"the first-order expansion misses {float(missed.norm() / moved.norm()):.0%} of what was learned")


if __name__ == "__main__":
    main()
