"""Textures of the demo city, as PNG."""

import struct
import zlib
from random import Random

BAYS_PER_SIDE = 4


class Canvas:
    """A square RGB picture; colours are sRGB hexadecimal, lengths pixels, (0, 0) is the upper left."""

    def __init__(self, side: int, ground: str) -> None:
        self.side = side
        self.rows = [bytearray(bytes.fromhex(ground) * side) for _ in range(side)]

    def fill(self, colour: str, box: tuple[int, int, int, int]) -> None:
        """Fill the rectangle `box`: left, top, width, height."""
        left, top, width, height = box
        stroke = bytes.fromhex(colour) * width
        for row in self.rows[top : top + height]:
            row[3 * left : 3 * (left + width)] = stroke

    def add_grain(self, amount: int, dice: Random) -> None:
        """Lighten or darken every pixel at random, by at most `amount` of 255."""
        for row in self.rows:
            for at in range(0, len(row), 3):
                change = int((dice.random() - 0.5) * 2 * amount)
                row[at : at + 3] = bytes(min(255, max(0, value + change)) for value in row[at : at + 3])

    def encode_png(self) -> bytes:
        """Encode the picture as a PNG with eight-bit RGB and without row filters (PNG 1.2, 4.1)."""
        header = struct.pack(">2I5B", self.side, self.side, 8, 2, 0, 0, 0)
        body = zlib.compress(b"".join(b"\0" + row for row in self.rows), 9)
        chunks = ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
        return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(kind, payload) for kind, payload in chunks)


def _png_chunk(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def make_textures(dice: Random) -> dict[str, bytes]:
    """Make all textures: PNG bytes by name without suffix. Walls and roofs are nearly white; tints colour them."""
    pictures = {
        "plaster": _draw_plaster(dice),
        "brick": _draw_brick(dice),
        "glass + steel": _draw_glass(dice),
        "shops": _draw_shops(dice),
        "tiles": _draw_tiles(dice),
        "street": _draw_street(),
    }
    for name, ground, amount in (("plain", "f4f4f4", 7), ("leaves", "dcdcdc", 30), ("water", "ececec", 11)):
        pictures[name] = Canvas(32, ground)
        pictures[name].add_grain(amount, dice)
    return {name: picture.encode_png() for name, picture in pictures.items()}


def _list_bay_corners() -> list[tuple[int, int]]:
    """Return the upper left corners of the 32-pixel window bays of a 128-pixel facade."""
    return [(32 * column, 32 * row) for row in range(BAYS_PER_SIDE) for column in range(BAYS_PER_SIDE)]


def _draw_plaster(dice: Random) -> Canvas:
    """Draw a plaster wall with framed windows; some have shutters, some a closed curtain."""
    picture = Canvas(128, "f6f4ee")
    for x, y in _list_bay_corners():
        shuttered = dice.random() < 0.45
        picture.fill("d5d0c4", (x + 9, y + 27, 14, 2))
        picture.fill("ffffff", (x + 9, y + 6, 14, 21))
        picture.fill("3c4a5a" if dice.random() < 0.8 else "8a8f86", (x + 11, y + 8, 10, 18))
        picture.fill("62788c", (x + 11, y + 8, 10, 5))
        picture.fill("ffffff", (x + 15, y + 8, 2, 18))
        for side in (x + 4, x + 23) if shuttered else ():
            picture.fill("7f9488", (side, y + 7, 5, 20))
    return picture


def _draw_brick(dice: Random) -> Canvas:
    """Draw a brick wall with wide factory windows."""
    picture = Canvas(128, "f0ebe6")
    for row in range(0, 128, 4):
        picture.fill("d9d2cb", (0, row, 128, 1))
    for x, y in _list_bay_corners():
        picture.fill("fbfaf7", (x + 4, y + 5, 24, 22))
        for pane in range(3):
            picture.fill("46566a" if dice.random() < 0.75 else "6f8396", (x + 6 + 7 * pane, y + 7, 6, 8))
            picture.fill("3b4959", (x + 6 + 7 * pane, y + 16, 6, 9))
    return picture


def _draw_glass(dice: Random) -> Canvas:
    """Draw a glass facade: panes in steel frames, in different blues."""
    picture = Canvas(128, "f2f5f6")
    panes = ("6f95ad", "7ba3b9", "88afc2", "98bccb", "5f859e")
    for x, y in _list_bay_corners():
        for half in (0, 16):
            pane = panes[int(dice.random() * len(panes))]
            picture.fill(pane, (x + half + 1, y + 2, 14, 25))
            picture.fill("a9c7d3", (x + half + 1, y + 2, 14, 5))
    return picture


def _draw_shops(dice: Random) -> Canvas:
    """Draw shop windows under awnings, one storey high, four side by side."""
    picture = Canvas(128, "e9e4da")
    awnings = ("b5483f", "3f7f75", "d9a441", "456a94", "8c5a7a")
    for x, y in _list_bay_corners():
        awning = awnings[int(dice.random() * len(awnings))]
        picture.fill("2f3b46", (x + 3, y + 12, 26, 18))
        picture.fill("c9a76a", (x + 5, y + 20, 14, 9))
        picture.fill("6b4f3a", (x + 22, y + 14, 6, 18))
        for stripe in range(0, 28, 4):
            picture.fill(awning if stripe % 8 else "f7f2e8", (x + 2 + stripe, y + 5, 4, 8))
    return picture


def _draw_tiles(dice: Random) -> Canvas:
    """Draw rows of roof tiles."""
    picture = Canvas(32, "f2f2f2")
    for row in range(0, 32, 8):
        picture.fill("b9b9b9", (0, row, 32, 2))
        for column in range(row % 16 // 4, 32, 4):
            picture.fill("cfcfcf", (column, row + 2, 1, 6))
    picture.add_grain(9, dice)
    return picture


def _draw_street() -> Canvas:
    """Draw a grid cell from above: half a street on each side, kerbs, zebra crossings; two pixels a metre."""
    picture = Canvas(256, "8d8f90")
    for at in range(26, 230, 12):
        for box in ((at, 0, 6, 1), (at, 255, 6, 1), (0, at, 1, 6), (255, at, 1, 6)):
            picture.fill("e8e6dc", box)
    for at in range(1, 19, 4):
        for edge in (22, 228):
            picture.fill("e8e6dc", (edge, at, 6, 2))
            picture.fill("e8e6dc", (edge, 254 - at, 6, 2))
            picture.fill("e8e6dc", (at, edge, 2, 6))
            picture.fill("e8e6dc", (254 - at, edge, 2, 6))
    picture.fill("d8d2c6", (20, 20, 216, 216))
    return picture
