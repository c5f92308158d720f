"""Eigenvalues of the curvature: extreme ones, their sum, all of them."""
