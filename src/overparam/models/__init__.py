"""Architectures as plain modules that return logits."""
