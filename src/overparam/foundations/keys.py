"""Keys of random streams. Torch-free, so that analysing a store never loads torch."""

import hashlib


def key(seed: int, *purpose: str | int) -> int:
    """63-bit integer key of the stream named by a seed and a purpose.

    `key = BLAKE2b-64(seed ␟ purpose₁ ␟ …) mod 2⁶³`. Streams of different purposes, and of different seeds,
    are unrelated: unlike `seed + i`, epoch 1 of seed 0 never equals epoch 0 of seed 1.

    >>> key(0, "order", 1) == key(1, "order", 0)
    False
    """
    text = "\x1f".join([str(int(seed)), *(f"{type(part).__name__}:{part}" for part in purpose)])
    digest = hashlib.blake2b(text.encode(), digest_size=8, person=b"overparam-rng").digest()
    return int.from_bytes(digest, "big") >> 1
