"""Measurements: modules and tensors in, typed records out. No store, no printing, no specs."""
