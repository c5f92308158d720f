"""Digests of arrays."""
