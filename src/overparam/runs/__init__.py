"""RunSpec → Run: where runs start, how they are trained, and the store where finished ones live."""
