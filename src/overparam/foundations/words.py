"""Words for people: the nearest match, a value as it is shown."""

import difflib
import json
from collections.abc import Iterable
from typing import Any


def closest(word: Any, words: Iterable[str]) -> str | None:
    """The word that was most likely meant, if any is near.

    >>> closest("Batchsize", ["batch_size", "flatness"])
    'batch_size'
    """
    known = list(words)
    lower = [each.lower() for each in known]
    match = difflib.get_close_matches(str(word).lower(), lower, n=1)
    return known[lower.index(match[0])] if match else None


def nearest(word: Any, words: Iterable[str]) -> str:
    """The end of an error's sentence; empty if no word is near."""
    found = closest(word, words)
    return "" if found is None else f"; nearest match: {found}"


def show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:59]}…"
