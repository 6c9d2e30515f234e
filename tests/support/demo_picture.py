"""Picture of the demo city as 3d-tiles-renderer draws it, for the README and the documentation."""

from __future__ import annotations

import struct
import zlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from itertools import accumulate
from pathlib import Path

from tests.support.simulator import Simulator
from tests.support.viewers import Browser, CameraPose, StaticSite, pixels, view_url
from tilesync.demo.city import build_city

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "images" / "demo-city.png"
SIZE_PX = (1200, 520)
POSE = CameraPose("city", heading=300, pitch=-27, distance=0.66, error=4)
SKY_RGB = (214, 228, 240)
COLOUR_COUNT = 160

Colour = tuple[int, ...]


def take_picture(browser: Browser, folder: Path) -> list[Colour]:
    """Mirror the demo city into a folder, and return the pixels of its picture. Raises AssertionError."""
    with Simulator() as service:
        service.offer_export(build_city())
        assert service.mirror(folder).error is None
    with StaticSite({"/": folder}) as site:
        url = f"{site.url}/tileset.json"
        result = view_url(browser, "three", url, [POSE], size_px=SIZE_PX, background_rgb=SKY_RGB)
    assert result.errors == []
    return list(pixels(result.screenshots[POSE.name]))


def mean_difference(left: Iterable[Colour], right: Iterable[Colour]) -> float:
    """Return the mean difference of the samples of two pictures; 255 for black and white."""
    differences = [abs(a - b) for one, other in zip(left, right, strict=True) for a, b in zip(one, other, strict=True)]
    return sum(differences) / len(differences)


def encode_picture(picture: list[Colour], size_px: tuple[int, int] = SIZE_PX) -> bytes:
    """Encode a picture as a PNG with a palette, so that it is small (PNG, section 11)."""
    palette = choose_palette(Counter(picture))
    nearest = {colour: number for number, (_, group) in enumerate(palette) for colour in group}
    width, height = size_px
    rows = (picture[start : start + width] for start in range(0, width * height, width))
    data = b"".join(b"\0" + bytes(nearest[colour] for colour in row) for row in rows)
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    colours = bytes(sample for mean, _ in palette for sample in mean)
    chunks = ((b"IHDR", header), (b"PLTE", colours), (b"IDAT", zlib.compress(data, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk)) + kind + chunk + struct.pack(">I", zlib.crc32(kind + chunk))
        for kind, chunk in chunks
    )


def choose_palette(counts: Counter[Colour]) -> list[tuple[Colour, list[Colour]]]:
    """Choose colours by median cut: each with the group of colours that it replaces."""
    groups = [sorted(counts)]
    while len(groups) < COLOUR_COUNT:
        largest = max(groups, key=lambda group: spread(group)[0] * sum(counts[each] for each in group) ** 0.5)
        if len(largest) == 1:
            break
        groups.remove(largest)
        channel = spread(largest)[1]
        largest.sort(key=lambda colour: colour[channel])
        sums = list(accumulate(counts[each] for each in largest))
        cut = min(bisect_left(sums, sums[-1] / 2) + 1, len(largest) - 1)
        groups += [largest[:cut], largest[cut:]]
    return [(mean_colour(group, counts), group) for group in groups]


def spread(group: list[Colour]) -> tuple[int, int]:
    """Return the widest range of a channel in a group of colours, and the channel."""
    return max((max(each) - min(each), channel) for channel, each in enumerate(zip(*group, strict=True)))


def mean_colour(group: list[Colour], counts: Counter[Colour]) -> Colour:
    """Return the mean of a group of colours, weighted by their counts."""
    total = sum(counts[each] for each in group)
    return tuple(round(sum(each[channel] * counts[each] for each in group) / total) for channel in range(3))
