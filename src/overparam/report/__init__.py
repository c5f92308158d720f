"""From verdicts and tables to one self-contained page. Torch-free."""
