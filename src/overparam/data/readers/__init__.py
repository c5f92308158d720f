"""Readers of file formats, each one file."""
