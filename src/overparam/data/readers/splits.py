"""Which of the splits of a data set is its test part."""

from collections.abc import Callable

VALIDATION = ("validation", "valid", "val")


def held_out(has: Callable[[str], object]) -> tuple[str, tuple[str, ...]] | None:
    """The split that is the test part, with notes on it: "test", else a validation split, which then stands for it.

    >>> held_out({"train", "val"}.__contains__)
    ('val', ('It has no test split; its split "val" is taken for it.',))
    """
    validation = next((split for split in VALIDATION if has(split)), None)
    if has("test"):
        note = f'Its split "{validation}" is left out; validation examples are taken from the training pool.'
        return "test", (note,) if validation else ()
    if validation is None:
        return None
    return validation, (f'It has no test split; its split "{validation}" is taken for it.',)
