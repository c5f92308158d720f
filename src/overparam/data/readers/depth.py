"""Whether an image file has more than eight bits per channel: of colours Pillow keeps the first eight, in silence."""

import re

from PIL.ImageFile import ImageFile

SIXTEEN = re.compile(
    r";16[BLN]"
)  # in the raw modes of PNG, TIFF and SGI; "BGR;16" of BMP is 16 bits for three channels


def is_deep(image: ImageFile, content: bytes) -> bool:
    """Whether decoding an open image would cut its pixels. JPEG, WebP, GIF and BMP have no more than eight bits."""
    tiles = [tile.args for tile in image.tile]
    if image.format == "PPM":
        return any(isinstance(args, tuple) and isinstance(args[-1], int) and args[-1] > 255 for args in tiles)
    if image.format == "JPEG2000":
        return _after(content, b"\xff\x51", 38) & 0x7F > 7  # the depth of the first component, less one
    if image.format == "AVIF":
        return _after(content, b"av1C", 2) & 0x40 > 0  # the bit of high depth
    return any(SIXTEEN.search(str(args)) for args in tiles)


def _after(content: bytes, mark: bytes, distance: int) -> int:
    """The byte at a distance from the end of a mark; 0 where there is none."""
    place = content.find(mark) + len(mark) + distance
    return content[place] if mark in content and place < len(content) else 0
