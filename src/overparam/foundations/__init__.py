"""Randomness: keys are derived from (seed, purpose), generators are made from keys, and nowhere else."""
