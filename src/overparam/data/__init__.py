"""Data sets as numpy arrays: embedded and read from files, decoded once, digested, never downloaded."""
