"""The studies, each a declaration."""
