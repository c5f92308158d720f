"""Probes: what is measured of a trained network, each one file."""
