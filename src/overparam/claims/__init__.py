"""From runs to intervals to verdicts. Torch-free."""
