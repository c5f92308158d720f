"""A mean loss over fixed data as a function of a model's parameters."""
