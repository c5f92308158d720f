"""Where finished runs live: content-addressed, append-only, verified on reading. Torch-free."""
