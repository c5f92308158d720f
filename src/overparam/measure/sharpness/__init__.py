"""How much the loss rises around a network."""
