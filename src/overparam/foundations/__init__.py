"""What every room stands on: random streams, atomic files, paths, the numeric environment, words."""
