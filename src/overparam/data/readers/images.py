"""Image files → arrays of bytes. Each is looked at before its pixels are decoded, and what is changed is counted."""

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile

from overparam.data.readers.depth import is_deep
from overparam.data.types import LOSSY, Array, DataError, Say, first_line, unreadable, unsaid

MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")
GREY = ("1", "L", "LA")
JPEG = b"\xff\xd8"

Named = tuple[str, bytes | None]  # what errors call an image, and the content of its file


@dataclass(frozen=True)
class Part:
    """Images of a part, all of one height and width, and how many of them had transparent pixels or are JPEG."""

    images: list[Array]
    transparent: int
    lossy: int


def file_content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise unreadable(file, error) from None


def decode_images(images: Iterable[Named], where: Path, say: Say = unsaid) -> Array:
    """Named image files → uint8 (N, C, H, W), one channel for grey and three for colour; see `decode_parts`."""
    return decode_parts({"all": images}, {"all": where}, say)["all"]


def decode_parts(parts: Mapping[str, Iterable[Named]], where: Mapping[str, Path], say: Say) -> dict[str, Array]:
    """Named image files of each part → uint8 (N, C, H, W), one channel if all are grey, else three.

    Transparent pixels are put on white. Notes say how many images were so changed, and that some are JPEG.

    Raises:
        DataError: a part has none, one cannot be read, or their sizes differ.
    """
    decoded = {part: _part(images, where[part]) for part, images in parts.items()}
    every = [image for part in decoded.values() for image in part.images]
    grey = sum(len(image) == 1 for image in every)
    if any(part.lossy for part in decoded.values()):
        say(LOSSY)
    if transparent := sum(part.transparent for part in decoded.values()):
        say(f"{transparent:,} of {len(every):,} images have transparent pixels; they are put on white.")
    if mixed := 0 < grey < len(every):
        say(f"{grey:,} of {len(every):,} images are grey; their one channel is taken three times, as in the others.")
    return {part: _stacked(each.images, 3 if mixed else None) for part, each in decoded.items()}


def _stacked(images: list[Array], channels: int | None) -> Array:
    return np.stack([np.broadcast_to(x, (channels or len(x), *x.shape[1:])) for x in images])


def _part(images: Iterable[Named], where: Path) -> Part:
    decoded: list[Array] = []
    transparent = lossy = 0
    for name, content in images:
        pixels, see_through = _decode(content or b"", name, where, decoded[0].shape if decoded else None)
        decoded.append(pixels)
        transparent += see_through
        lossy += (content or b"").startswith(JPEG)
    if not decoded:
        raise DataError(f"{where} holds no images")
    return Part(decoded, transparent, lossy)


def _decode(content: bytes, name: str, where: Path, first: tuple[int, ...] | None) -> tuple[Array, bool]:
    """Pixels (C, H, W) of one image, and whether some were transparent: it must have the size of the `first` one."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            _check_mode(image, content, name)
            _check_size((1 if image.mode in GREY else 3, image.height, image.width), name, where, first)
            shown, see_through = _on_white(image)
            return _pixels(shown, image.mode), see_through
    except DataError:
        raise
    except Exception as error:  # no closed list: DecompressionBombError is of no other class, and formats add theirs
        raise DataError(f"{name} is not a readable image ({first_line(error)})") from None


def _pixels(shown: Image.Image, mode: str) -> Array:
    """Grey images have one channel, whatever their file needs for it: also those with a palette of greys."""
    if mode in GREY:
        return np.asarray(shown.convert("L"))[None]
    colours = np.asarray(shown if shown.mode == "RGB" else shown.convert("RGB")).transpose(2, 0, 1)
    return colours[:1] if mode == "P" and (colours == colours[:1]).all() else colours


def _on_white(image: Image.Image) -> tuple[Image.Image, bool]:
    """An image without transparency. Where a pixel is transparent its colour says nothing, and most often is black."""
    if image.mode not in ("LA", "RGBA") and "transparency" not in image.info:
        return image, False
    with_alpha, mode = image.convert("RGBA"), "L" if image.mode in GREY else "RGB"
    lowest, _ = with_alpha.getchannel("A").getextrema()
    if lowest == 255:
        return with_alpha.convert(mode), False
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, with_alpha).convert(mode), True


def _check_mode(image: ImageFile, content: bytes, name: str) -> None:
    """Pillow clips what has more than eight bits to white, or cuts it, and says nothing."""
    if image.mode in MODES and not is_deep(image, content):
        return
    bits = " and more than eight bits per channel" if image.mode in MODES else ""
    raise DataError(
        f'{name} has pixels of mode "{image.mode}"{bits}; allowed: {", ".join(MODES)}, with eight bits per channel or '
        "fewer: convert it"
    )


def _check_size(shape: tuple[int, int, int], name: str, where: Path, first: tuple[int, ...] | None) -> None:
    if first is not None and shape[1:] != first[1:]:
        named = " and ".join(f"{c} channels {h}×{w}" for c, h, w in sorted([shape, first]))
        raise DataError(
            f"{where} mixes image sizes ({named}: {name} is not like the first one); all images of a data set must "
            "have one size"
        )
