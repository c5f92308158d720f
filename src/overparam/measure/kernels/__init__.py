"""Tangent kernels: of a network, of infinite width, and what they predict."""
