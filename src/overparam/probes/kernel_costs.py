"""What tangent kernels cost, for plans.

Costs are those of the laptop preset of `ntk_regime`: forward passes from widths 1024 and 2048, seconds of dense
algebra, which do not depend on the network, from width 32.
"""

OUTPUTS = 10  # of all data sets that come with the package
BACKWARD = 2.0  # of a forward pass: sensitivities of one output
EIGENVALUES, EIGENVECTORS, CHOLESKY = 1.4e-10, 3e-10, 1e-11  # seconds over the cube of a kernel's side
