"""Architectures as values, each one file."""
