"""A network's derivative by layers, so that no Jacobian has to be formed."""
