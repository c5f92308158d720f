"""Two networks, or two masks, side by side."""
