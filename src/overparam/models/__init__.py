"""Networks as plain modules that return logits; their losses and risks, masks, and first-order models."""
