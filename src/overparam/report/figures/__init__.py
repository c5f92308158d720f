"""Figures, each one file."""
