"""How a data set is to be read where its files leave that open: told once, and kept in a file beside them."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from overparam.data.types import DataError

FILE = "overparam.json"


class Reading(BaseModel):
    """What a user says about files that can be read in more than one way; `None` means nothing was said.

    `channels` is the place of the channel axis of images in an .npz file: (N, C, H, W) is "first", (N, H, W, C)
    "last". `labels` is the column of labels where there are several, such as "coarse_label" of CIFAR-100.
    `notes` are those on the folder that a data set was added from, whose other files were left there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: Literal["first", "last"] | None = None
    labels: str | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, channels: str | None, labels: str | None) -> "Reading":
        """A reading from what a user says.

        Raises:
            DataError: `channels` is no place of an axis.
        """
        if channels in (None, "first", "last"):
            return cls.model_validate({"channels": channels, "labels": labels})
        raise DataError(f'channels="{channels}" is unknown; allowed: first for (N, C, H, W), last for (N, H, W, C)')

    def said(self) -> dict[str, str]:
        """Fields that are not left open."""
        return self.model_dump(exclude_none=True, exclude={"notes"})

    def over(self, other: "Reading") -> "Reading":
        """This reading, and the other one where nothing is said here."""
        notes = tuple(dict.fromkeys((*other.notes, *self.notes)))
        return Reading.model_validate(other.said() | self.said() | {"notes": notes})


def reading_file(home: Path) -> tuple[Path, ...]:
    """The file in which a reading is kept, if there is one."""
    file = home / FILE
    return (file,) if file.is_file() else ()


def stored_reading(home: Path) -> Reading:
    """The reading that is kept beside the files of a data set.

    Raises:
        DataError: the file is no JSON object with the fields of a reading.
    """
    try:
        return next((Reading.model_validate_json(file.read_bytes()) for file in reading_file(home)), Reading())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(
            f"{home / FILE} is not understood ({place + ': ' if place else ''}{first['msg']}); it may say "
            '{"channels": "first"} or "last", and {"labels": COLUMN}'
        ) from None
