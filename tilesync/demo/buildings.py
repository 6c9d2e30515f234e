"""One block of the demo city: its buildings and trees, and how each level of detail draws them."""

import math
from dataclasses import dataclass, field

from tilesync.demo.geometry import GroundPoint, Ring, add_cap, add_lathe, add_pitched_roof, add_walls, expand_ring
from tilesync.demo.glb import Mesh, Tint, darken, parse_tint

BLOCK_HALF_WIDTH_M = 52.0
PAVEMENT_HEIGHT_M = 1.2
COARSE, MIDDLE, FINE = range(3)

PAVING, GRASS, FLAT_ROOF, TRUNK, DARK = map(parse_tint, ("e8dfce", "a6cf78", "c9c7c2", "7a5b43", "3c4650"))

CONE = ((1.0, 0.0), (0.0, 1.0))
BUD = ((0.7, 0.0), (1.0, 0.5), (0.0, 1.0))
BALL = ((0.5, 0.0), (1.0, 0.35), (0.7, 0.8), (0.0, 1.0))


@dataclass(frozen=True, slots=True)
class Building:
    """A building: its footprint extruded from `low` to `high` metres; `rise` is the height of a pitched roof."""

    ring: Ring
    high: float
    wall: str
    tint: Tint
    roof: Tint = FLAT_ROOF
    low: float = PAVEMENT_HEIGHT_M
    rise: float = 0.0
    inset: float = 0.0
    has_shops: bool = False


@dataclass(frozen=True, slots=True)
class Ground:
    """A flat patch just above the pavement: lawn, path or pond."""

    ring: Ring
    texture: str
    tint: Tint
    height: float = PAVEMENT_HEIGHT_M + 0.1


@dataclass(frozen=True, slots=True)
class Tree:
    """A tree `height` metres tall; a conifer tapers to a point, others bulge."""

    spot: GroundPoint
    height: float
    tint: Tint
    is_conifer: bool


@dataclass(slots=True)
class Block:
    """Content of a block, within `BLOCK_HALF_WIDTH_M` metres of `centre`. `masses`: simple buildings for far views."""

    centre: GroundPoint
    masses: list[Building] = field(default_factory=list)
    buildings: list[Building] = field(default_factory=list)
    grounds: list[Ground] = field(default_factory=list)
    trees: list[Tree] = field(default_factory=list)
    cars: list[tuple[Ring, Tint]] = field(default_factory=list)

    def rect(self, east: float, north: float, width: float, depth: float) -> Ring:
        """Return a rectangle around a point relative to the centre, counter-clockwise from the south-west corner."""
        x, y = self.centre[0] + east, self.centre[1] + north
        w, d = width / 2, depth / 2
        return (x - w, y - d), (x + w, y - d), (x + w, y + d), (x - w, y + d)

    def disc(self, east: float, north: float, radius: float, sides: int) -> Ring:
        """Return a regular polygon around a point relative to the centre, counter-clockwise."""
        x, y = self.centre[0] + east, self.centre[1] + north
        turns = [math.tau * (side + 0.5) / sides for side in range(sides)]
        return tuple((x + radius * math.cos(turn), y + radius * math.sin(turn)) for turn in turns)


def draw_block(block: Block, detail: int) -> Mesh:
    """Draw a block at one level of detail: `COARSE` masses, `MIDDLE` roofs and trees, `FINE` shops and crowns."""
    mesh = Mesh()
    draw_block_into(mesh, block, detail)
    return mesh


def draw_block_into(mesh: Mesh, block: Block, detail: int) -> None:
    """Add a block to a mesh that may contain others."""
    add_cap(
        mesh,
        block.rect(0, 0, 2 * BLOCK_HALF_WIDTH_M, 2 * BLOCK_HALF_WIDTH_M),
        texture="plain",
        height=PAVEMENT_HEIGHT_M,
        colour=PAVING,
    )
    add_walls(
        mesh,
        block.rect(0, 0, 2 * BLOCK_HALF_WIDTH_M, 2 * BLOCK_HALF_WIDTH_M),
        texture="plain",
        span=(1.0, PAVEMENT_HEIGHT_M),
        colour=PAVING,
    )
    for ground in block.grounds:
        add_cap(mesh, ground.ring, texture=ground.texture, height=ground.height, colour=ground.tint)
    for building in block.masses if detail == COARSE else block.buildings:
        _draw_building(mesh, building, detail)
    for tree in block.trees if detail > COARSE else block.trees[::3]:
        _draw_tree(mesh, tree, detail)


def draw_street_details(block: Block) -> Mesh:
    """Draw the details for near views: cars, lamps, chimneys."""
    mesh = Mesh()
    for ring, colour in block.cars:
        add_walls(mesh, ring, texture="plain", span=(1.2, 1.9), colour=colour)
        add_cap(mesh, ring, texture="plain", height=1.9, colour=colour)
        add_walls(mesh, expand_ring(ring, -0.35), texture="plain", span=(1.9, 2.5), colour=DARK)
        add_cap(mesh, expand_ring(ring, -0.35), texture="plain", height=2.5, colour=colour)
    for corner in block.rect(0, 0, 2 * BLOCK_HALF_WIDTH_M - 2, 2 * BLOCK_HALF_WIDTH_M - 2):
        add_lathe(
            mesh,
            corner,
            texture="plain",
            profile=((0.12, PAVEMENT_HEIGHT_M), (0.1, 6.6), (0.7, 6.7), (0.0, 7.2)),
            sides=3,
            colour=DARK,
        )
    for building in block.buildings[::3]:
        _draw_chimney(mesh, building)
    return mesh


def _draw_chimney(mesh: Mesh, building: Building) -> None:
    """Draw a chimney on a pitched roof, or a machine room on a flat one."""
    (ax, ay), (cx, cy) = building.ring[0], building.ring[2]
    x, y = ax + 0.3 * (cx - ax), ay + 0.3 * (cy - ay)
    size, height = (0.7, building.high + building.rise + 0.8) if building.rise else (2.5, building.high + 2.4)
    ring = (x - size, y - size), (x + size, y - size), (x + size, y + size), (x - size, y + size)
    add_walls(mesh, ring, texture="plain", span=(building.high, height), colour=darken(building.tint, 0.8))
    add_cap(mesh, ring, texture="plain", height=height, colour=FLAT_ROOF)


def _draw_building(mesh: Mesh, building: Building, detail: int) -> None:
    if building.has_shops and detail == FINE:
        _draw_shops(mesh, building)
    add_walls(mesh, building.ring, texture=building.wall, span=(building.low, building.high), colour=building.tint)
    if building.rise:
        span = building.high - 0.2, building.high + building.rise
        add_pitched_roof(mesh, building.ring, span=span, inset=building.inset, roof=building.roof, wall=building.tint)
    else:
        add_cap(
            mesh,
            building.ring,
            texture="leaves" if building.roof == GRASS else "plain",
            height=building.high,
            colour=building.roof,
        )


def _draw_shops(mesh: Mesh, building: Building) -> None:
    """Draw a storey of shops 0.2 m in front of the first edge, which faces the street."""
    ring, span = expand_ring(building.ring, 0.2), (building.low, building.low + 4.0)
    add_walls(mesh, ring[:2], texture="shops", span=span, colour=darken(building.tint, 0.95), storey=4.0)


def _draw_tree(mesh: Mesh, tree: Tree, detail: int) -> None:
    """Draw a tree: the coarser the detail, the fewer corners its crown has. `FINE` adds a trunk."""
    top, width = PAVEMENT_HEIGHT_M + tree.height, tree.height * (0.26 if tree.is_conifer else 0.38)
    foot = PAVEMENT_HEIGHT_M + 0.2 * tree.height
    if detail == FINE:
        add_lathe(
            mesh, tree.spot, texture="plain", profile=((0.35, PAVEMENT_HEIGHT_M), (0.25, foot)), sides=3, colour=TRUNK
        )
    else:
        foot = PAVEMENT_HEIGHT_M
    profile = CONE if tree.is_conifer else (CONE, BUD, BALL)[detail]
    crown = tuple((width * out, foot + (top - foot) * up) for out, up in profile)
    add_lathe(mesh, tree.spot, texture="leaves", profile=crown, sides=3 + detail, colour=tree.tint)
