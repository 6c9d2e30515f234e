"""Block plans of the demo city: buildings, trees and cars by kind of neighbourhood."""

import math
from itertools import pairwise
from random import Random

from tilesync.demo.buildings import (
    BLOCK_HALF_WIDTH_M,
    FLAT_ROOF,
    GRASS,
    PAVEMENT_HEIGHT_M,
    Block,
    Building,
    Ground,
    Tree,
)
from tilesync.demo.geometry import STOREY_HEIGHT_M, GroundPoint, Ring
from tilesync.demo.glb import Tint, parse_tint

HOUSE_DEPTH_M = 14.0

PLASTER = tuple(
    map(parse_tint, ("f7e9c6", "edd3a2", "f0bf98", "e2a392", "c4d9e2", "cfe0c2", "f7f4ea", "e6bd6c", "e9dcd0"))
)
BRICK = tuple(map(parse_tint, ("d2917a", "c47f6a", "deb094", "c08c78")))
GLASS = tuple(map(parse_tint, ("f2fbff", "d5eaf2", "e6f2ea", "c3dae8")))
ROOF = tuple(map(parse_tint, ("d98462", "c97356", "e09a76", "d27d60", "9a9ca3")))
LEAVES = tuple(map(parse_tint, ("6fa650", "5b9548", "86b45a", "4d8752", "a3bd5c")))
CAR = tuple(map(parse_tint, ("e9e9e6", "2f3a46", "b23a34", "3d6c9e", "d7b24a", "8d9796")))
PATH, WATER, LIMESTONE, COPPER = map(parse_tint, ("eadfc3", "6fb7c9", "efe3cc", "7f9f94"))


def choose_tint(dice: Random, choices: tuple[Tint, ...]) -> Tint:
    """Choose one of `choices`. Uses only random(), because its results are the same in all Python versions."""
    return choices[int(dice.random() * len(choices))]


def random_between(dice: Random, low: float, high: float) -> float:
    """Return a random number from `low` up to, not including, `high`."""
    return low + (high - low) * dice.random()


def build_houses(block: Block, dice: Random) -> None:
    """Build a closed row of town houses around a green courtyard."""
    block.grounds.append(Ground(block.rect(0, 0, 76, 76), "leaves", GRASS))
    for side, (length, count) in enumerate(
        ((2 * BLOCK_HALF_WIDTH_M, 3), (2 * (BLOCK_HALF_WIDTH_M - HOUSE_DEPTH_M), 2)) * 2
    ):
        high = PAVEMENT_HEIGHT_M + STOREY_HEIGHT_M * int(random_between(dice, 4, 7))
        block.masses.append(_make_row_house(block, side, place=(0.0, length), high=high, dice=dice))
        cuts = [0.0, *(length * (part + random_between(dice, -0.2, 0.2)) / count for part in range(1, count)), length]
        for start, end in pairwise(cuts):
            place, eaves = (
                ((start + end - length) / 2, end - start),
                high + STOREY_HEIGHT_M * int(random_between(dice, -1, 2)),
            )
            block.buildings.append(_make_row_house(block, side, place=place, high=eaves, dice=dice))
    _plant_trees(block, dice, count=8, radius_m=32)
    _park_cars(block, dice)


def _make_row_house(block: Block, side: int, *, place: tuple[float, float], high: float, dice: Random) -> Building:
    """Make a house on a side of the block (0 south, then counter-clockwise), with its ridge along the street.

    `place`: the distance of its middle from the middle of the side, and its width.
    """
    (along, width), row = place, HOUSE_DEPTH_M / 2 - BLOCK_HALF_WIDTH_M
    x, y = ((along, row), (-row, along), (-along, -row), (row, -along))[side]
    ring = block.rect(x, y, *((HOUSE_DEPTH_M, width) if side % 2 else (width, HOUSE_DEPTH_M)))
    ring = ring[side:] + ring[:side]
    return Building(
        ring, high, "plaster", choose_tint(dice, PLASTER), choose_tint(dice, ROOF), rise=5.0, has_shops=True
    )


def build_villas(block: Block, dice: Random) -> None:
    """Build nine houses in gardens."""
    block.grounds.append(Ground(block.rect(0, 0, 98, 98), "leaves", GRASS))
    for east in (-33.0, 0.0, 33.0):
        block.grounds.append(Ground(block.rect(east - 10, 0, 3, 104), "plain", PATH, PAVEMENT_HEIGHT_M + 0.2))
        for north in (-33.0, 0.0, 33.0):
            width, depth = random_between(dice, 12, 17), random_between(dice, 10, 12)
            ring = block.rect(east + random_between(dice, 0, 5), north + random_between(dice, -4, 4), width, depth)
            ring = ring[1:] + ring[:1] if width < depth else ring
            high = PAVEMENT_HEIGHT_M + STOREY_HEIGHT_M * int(random_between(dice, 2, 4))
            style = choose_tint(dice, PLASTER), choose_tint(dice, ROOF)
            block.buildings.append(Building(ring, high, "plaster", *style, rise=4.0, inset=depth * 0.4))
    block.masses = block.buildings
    _plant_trees(block, dice, count=16, radius_m=49)
    _park_cars(block, dice)


def build_towers(block: Block, dice: Random) -> None:
    """Build two glass towers on a square with trees; each rises in steps from its own base."""
    for east, north in ((-24.0, 22.0), (24.0, -22.0)):
        sides, radius = (4, 25.0) if dice.random() < 0.6 else (8, 20.0)
        colour = choose_tint(dice, GLASS)
        block.buildings.append(
            Building(block.rect(east, north, 46, 48), 9.6, "brick", PLASTER[6], GRASS, has_shops=True)
        )
        low, top = 9.6, random_between(dice, 45, 130)
        for share in (0.6, 0.85, 1.0):
            ring = block.disc(east, north, radius, sides)
            block.buildings.append(Building(ring, top * share, "glass + steel", colour, low=low))
            low, radius = top * share, radius * 0.8
    block.masses = block.buildings
    _plant_trees(block, dice, count=34, radius_m=50)
    _park_cars(block, dice)


def build_works(block: Block, dice: Random) -> None:
    """Build old factory halls of brick, some with flat green roofs."""
    for north in (-34.0, 0.0, 34.0):
        cut = random_between(dice, -20, 20)
        for west, east in ((-50.0, cut - 4), (cut + 4, 50.0)):
            ring = block.rect((west + east) / 2, north, east - west, 22)
            high = PAVEMENT_HEIGHT_M + STOREY_HEIGHT_M * int(random_between(dice, 4, 9))
            roof = GRASS if dice.random() < 0.5 else FLAT_ROOF
            block.buildings.append(
                Building(ring, high, "brick", choose_tint(dice, BRICK), roof, has_shops=dice.random() < 0.5)
            )
    block.masses = block.buildings
    _plant_trees(block, dice, count=14, radius_m=50)
    _park_cars(block, dice)


def build_park(block: Block, dice: Random) -> None:
    """Build a park: lawns, crossing paths, a pond, a pavilion and many trees."""
    block.grounds += (
        Ground(block.rect(0, 0, 102, 102), "leaves", GRASS),
        Ground(block.rect(0, 0, 4, 104), "plain", PATH, PAVEMENT_HEIGHT_M + 0.2),
        Ground(block.rect(0, 0, 104, 4), "plain", PATH, PAVEMENT_HEIGHT_M + 0.3),
        Ground(block.disc(0, 0, 25, 12), "plain", PATH, PAVEMENT_HEIGHT_M + 0.4),
        Ground(block.disc(0, 0, 21, 12), "water", WATER, PAVEMENT_HEIGHT_M + 0.5),
    )
    block.buildings.append(Building(block.disc(34, 34, 8, 8), 6.0, "shops", PLASTER[6], ROOF[4]))
    block.masses = block.buildings
    _plant_trees(block, dice, count=28, radius_m=49, inner_radius_m=28)


def build_minster(block: Block, dice: Random) -> None:
    """Build a church with a tall west tower on a paved square."""
    aisle = block.rect(18, 0, 16, 44)
    block.buildings += (
        Building(block.rect(8, 0, 60, 18), 22.0, "brick", LIMESTONE, COPPER, rise=13.0),
        Building(aisle[1:] + aisle[:1], 20.0, "brick", LIMESTONE, COPPER, rise=11.0),
        Building(block.rect(-28, 0, 16, 16), 52.0, "brick", LIMESTONE, COPPER, rise=34.0, inset=7.99),
        Building(block.disc(40, 0, 9, 8), 18.0, "brick", LIMESTONE, COPPER),
    )
    block.masses = block.buildings
    _plant_trees(block, dice, count=26, radius_m=50, inner_radius_m=34)
    _park_cars(block, dice)


def _plant_trees(block: Block, dice: Random, *, count: int, radius_m: float, inner_radius_m: float = 0.0) -> None:
    """Plant trees within `radius_m` of the centre, but not within `inner_radius_m` or inside a building."""
    for _ in range(count):
        east, north = random_between(dice, -radius_m, radius_m), random_between(dice, -radius_m, radius_m)
        height, colour, conifer = random_between(dice, 6, 12), choose_tint(dice, LEAVES), dice.random() < 0.25
        spot = block.centre[0] + east, block.centre[1] + north
        if math.hypot(east, north) >= inner_radius_m and not any(
            _is_near_building(item.ring, spot) for item in block.buildings
        ):
            block.trees.append(Tree(spot, height, colour, conifer))


def _is_near_building(ring: Ring, spot: GroundPoint) -> bool:
    """Return whether a point is within two metres of the bounding rectangle of a ring."""
    return all(min(c[axis] for c in ring) - 2 < spot[axis] < max(c[axis] for c in ring) + 2 for axis in (0, 1))


def _park_cars(block: Block, dice: Random) -> None:
    """Park cars along the kerb of all four streets."""
    for at in range(-42, 43, 12):
        for east, north in ((at, -55.0), (at, 55.0), (-55.0, at), (55.0, at)):
            if dice.random() < 0.09:
                ring = block.rect(east, north, *((1.9, 4.4) if abs(east) == 55 else (4.4, 1.9)))
                block.cars.append((ring, choose_tint(dice, CAR)))
