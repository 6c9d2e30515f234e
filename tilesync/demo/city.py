"""Generated demo city as a 3D Tiles 1.1 export: an island of sixteen districts."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from random import Random

from tilesync.demo.buildings import COARSE, FINE, MIDDLE, Block, draw_block, draw_block_into, draw_street_details
from tilesync.demo.city_plan import (
    build_houses,
    build_minster,
    build_park,
    build_towers,
    build_villas,
    build_works,
    random_between,
)
from tilesync.demo.geometry import GroundPoint, Ring, add_cap, add_lathe, add_walls
from tilesync.demo.glb import Mesh, Point, Tint, build_glb, parse_tint
from tilesync.demo.textures import make_textures

GridCell = tuple[int, int]
Box = tuple[Point, Point]

LONGITUDE_DEG, LATITUDE_DEG = 6.63, 46.495
GRID_CELLS = 12
DISTRICT_CELLS = 3
CELL_PITCH_M = 124.0
CANAL_WIDTH_M = 44.0
CANAL_COLUMN = 8
STREET_LEVEL_M = 1.0
SHORE_RADIUS_M = 880.0
NEW_TOWER_CELLS = ((3, 4), (9, 6), (6, 2), (2, 8))

STONE, ASPHALT, SAND, LAWN, PINE, STREET = map(parse_tint, ("cfc8ba", "8d8f90", "efe0b4", "a5c977", "6f9f55", "ffffff"))
SEA = tuple(map(parse_tint, ("bfe6d8", "7fd0d2", "4fb0c6", "3587ad", "2b6c96")))
HULL, DECK, SAIL = map(parse_tint, ("ffffff", "c99a63", "fbf7ee"))


def build_city(*, seed: int = 7, edition: int = 1) -> dict[str, bytes]:
    """Build the city: the bytes of every file by its name, `tileset.json` first.

    The same arguments give the same bytes under one zlib build. Editions 2 to 5 each build towers
    on one more block: only the tiles of that block and their ancestors differ.
    """
    pictures = make_textures(Random(seed))
    files = {f"textures/{name}.png": picture for name, picture in pictures.items()}
    writer = TileWriter(files, pictures)
    children = [writer.write_tile("shores.glb", _build_shores(Random(seed)), geometric_error=0.0)]
    for number, cells in enumerate(_list_districts()):
        blocks = [_build_block(cell, seed=seed, edition=edition) for cell in cells]
        children.append(replace(writer, folder=f"district-{number:02}/").write_district(blocks))
    root = writer.write_tile(
        "terrain.glb", _build_terrain(), children=tuple(children), geometric_error=640.0, embeds_textures=False
    )
    root = replace(root, refine="ADD")
    return {"tileset.json": root.build_tileset(transform=compute_enu_matrix(LONGITUDE_DEG, LATITUDE_DEG)), **files}


def compute_enu_matrix(longitude: float, latitude: float) -> list[float]:
    """Compute the column-major matrix from local east, north, up (metres) at a WGS84 point (degrees) to ECEF."""
    radius, flattening = 6378137.0, 1 / 298.257223563
    turn, tilt = math.radians(longitude), math.radians(latitude)
    sin_t, cos_t, sin_p, cos_p = math.sin(turn), math.cos(turn), math.sin(tilt), math.cos(tilt)
    squared = flattening * (2 - flattening)
    normal = radius / math.sqrt(1 - squared * sin_p**2)
    origin = normal * cos_p * cos_t, normal * cos_p * sin_t, normal * (1 - squared) * sin_p
    east, north = (-sin_t, cos_t, 0.0), (-sin_p * cos_t, -sin_p * sin_t, cos_p)
    up = cos_p * cos_t, cos_p * sin_t, sin_p
    return [*east, 0.0, *north, 0.0, *up, 0.0, *origin, 1.0]


# -- tiles -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile: the URI of its content, its geometric error in metres, and the box around it and its children."""

    uri: str
    geometric_error: float
    box: Box
    children: tuple["Tile", ...] = ()
    refine: str = "REPLACE"

    def build_json(self) -> dict[str, object]:
        """Build the tile object (3D Tiles 1.1, "Tiles"). The boxes of children are inside the box of the parent."""
        (x0, y0, z0), (x1, y1, z1) = self.box
        middle = (x0 + x1) / 2, (y0 + y1) / 2, (z0 + z1) / 2
        volume = [*middle, (x1 - x0) / 2, 0, 0, 0, (y1 - y0) / 2, 0, 0, 0, (z1 - z0) / 2]
        tile: dict[str, object] = {"boundingVolume": {"box": volume}, "geometricError": self.geometric_error}
        tile |= {"refine": self.refine, "content": {"uri": self.uri}}
        return tile | {"children": [child.build_json() for child in self.children]} if self.children else tile

    def build_tileset(self, *, transform: list[float] | None = None) -> bytes:
        """Build the tileset JSON with this tile as root; `transform` is a column-major 4x4 matrix."""
        root = self.build_json() | ({"transform": transform} if transform else {})
        document = {"asset": {"version": "1.1"}, "geometricError": self.geometric_error, "root": root}
        return json.dumps(document, separators=(",", ":")).encode()


def _bounding_box(mesh: Mesh, children: tuple[Tile, ...]) -> Box:
    """Return the smallest box, in whole centimetres, around a mesh and all children."""
    boxes = [mesh.box(), *(child.box for child in children)]
    x0, y0, z0 = (math.floor(min(low[axis] for low, _ in boxes) * 100) / 100 for axis in range(3))
    x1, y1, z1 = (math.ceil(max(high[axis] for _, high in boxes) * 100) / 100 for axis in range(3))
    return (x0, y0, z0), (x1, y1, z1)


@dataclass(frozen=True, slots=True)
class TileWriter:
    """Writes the tiles of one folder into `files`, and returns the tile objects for the tree."""

    files: dict[str, bytes]
    pictures: dict[str, bytes]
    folder: str = ""

    def write_tile(
        self,
        name: str,
        mesh: Mesh,
        *,
        geometric_error: float,
        children: tuple[Tile, ...] = (),
        embeds_textures: bool = True,
    ) -> Tile:
        """Store a mesh as `name`; its textures are embedded, or shared with other tiles."""
        texture_folder = None if embeds_textures else ("../textures/" if self.folder else "textures/")
        self.files[self.folder + name] = build_glb(mesh, self.pictures, texture_folder=texture_folder)
        return Tile(name, geometric_error, _bounding_box(mesh, children), children)

    def write_block(self, block: Block, number: int) -> Tile:
        """Write a block as three tiles: buildings, finer buildings that replace them, and street details added."""
        life = self.write_tile(f"block-{number}-life.glb", draw_street_details(block), geometric_error=0.0)
        fine = self.write_tile(
            f"block-{number}-fine.glb",
            draw_block(block, FINE),
            children=(life,),
            geometric_error=2.5,
            embeds_textures=False,
        )
        fine = replace(fine, refine="ADD")
        return self.write_tile(
            f"block-{number}.glb",
            draw_block(block, MIDDLE),
            children=(fine,),
            geometric_error=10.0,
            embeds_textures=False,
        )

    def write_district(self, blocks: list[Block]) -> Tile:
        """Write a district as an external tileset: one coarse tile with all blocks, then finer tiles for each block."""
        mesh = Mesh()
        for block in blocks:
            draw_block_into(mesh, block, COARSE)
        children = tuple(self.write_block(block, number) for number, block in enumerate(blocks))
        root = self.write_tile("coarse.glb", mesh, children=children, geometric_error=36.0)
        self.files[f"{self.folder}tileset.json"] = root.build_tileset()
        return Tile(f"{self.folder}tileset.json", root.geometric_error, root.box)


# -- the island ------------------------------------------------------------------------------------


def _list_districts() -> Iterator[list[GridCell]]:
    """Yield the grid cells in squares of three by three, without the cells at the corners of the island (beach)."""
    for south in range(0, GRID_CELLS, DISTRICT_CELLS):
        for west in range(0, GRID_CELLS, DISTRICT_CELLS):
            cells = [(west + at % DISTRICT_CELLS, south + at // DISTRICT_CELLS) for at in range(DISTRICT_CELLS**2)]
            yield [cell for cell in cells if _is_built(cell)]


def _is_built(cell: GridCell) -> bool:
    """Return whether a cell is on the grid, and not in one of its cut corners."""
    edges = sorted((min(cell[0], GRID_CELLS - 1 - cell[0]), min(cell[1], GRID_CELLS - 1 - cell[1])))
    return edges[0] >= 0 and sum(edges) > 1


def _west_edge_m(column: int) -> float:
    """Return the western edge of a column of cells, in metres. The canal is just west of column `CANAL_COLUMN`."""
    return (column - GRID_CELLS / 2) * CELL_PITCH_M + (
        CANAL_WIDTH_M / 2 if column >= CANAL_COLUMN else -CANAL_WIDTH_M / 2
    )


def _south_edge_m(row: int) -> float:
    return (row - GRID_CELLS / 2) * CELL_PITCH_M


def _build_block(cell: GridCell, *, seed: int, edition: int) -> Block:
    """Build the block of a cell with its own random generator, so that a change to one block never changes another."""
    block = Block((_west_edge_m(cell[0]) + CELL_PITCH_M / 2, _south_edge_m(cell[1]) + CELL_PITCH_M / 2))
    dice = Random(f"{seed} {cell[0]} {cell[1]}")
    plan = build_towers if cell in NEW_TOWER_CELLS[: edition - 1] else _choose_plan(cell, dice.random())
    plan(block, dice)
    return block


def _choose_plan(cell: GridCell, chance: float) -> Callable[[Block, Random], None]:
    """Choose the plan of a cell: towers in the middle, then town houses, then villas near the shore."""
    if cell == (6, 4):
        return build_minster
    if cell in ((4, 5), (4, 6), (5, 5)) or chance > 0.95:
        return build_park
    distance = max(abs(cell[0] - 5.5), abs(cell[1] - 5.5)) + chance
    if distance < 2.8 and cell[0] >= 5 and chance < 0.85:
        return build_towers
    if cell[0] >= CANAL_COLUMN + 1 and chance < 0.45:
        return build_works
    return build_houses if distance < 5.7 else build_villas


def _coast_point(share: float, at: float) -> tuple[float, float]:
    """Return point `at` of 64 on the coast line, scaled by `share`: a square with round corners and small bays."""
    turn = math.tau * at / 64
    x, y = math.cos(turn), math.sin(turn)
    radius = SHORE_RADIUS_M * share * (1 + 0.03 * math.sin(5 * turn) + 0.02 * math.cos(9 * turn))
    radius /= (x**4 + y**4) ** 0.25
    return radius * x, radius * y


def _build_terrain() -> Mesh:
    """Build the terrain: sea, beach, meadow, streets, canal and bridges."""
    mesh = Mesh()
    coast = [_coast_point(0.97, at) for at in range(65)]
    add_cap(mesh, ((0.0, 0.0), *coast), texture="leaves", height=0.0, colour=LAWN)
    _add_ring(mesh, "plain", steps=((0.97, 0.0), (1.08, -3.0)), colours=(SAND, SAND))
    shares = 1.04, 1.1, 1.22, 1.5, 2.1
    for at in range(4):
        _add_ring(mesh, "water", steps=((shares[at], -2.0), (shares[at + 1], -2.0)), colours=(SEA[at], SEA[at + 1]))
    for cell in ((column, row) for column in range(GRID_CELLS) for row in range(GRID_CELLS)):
        if _is_built(cell):
            _add_streets(mesh, cell)
    _add_canal(mesh)
    return mesh


def _add_ring(mesh: Mesh, texture: str, *, steps: tuple[GroundPoint, GroundPoint], colours: tuple[Tint, Tint]) -> None:
    """Add a band around the island between two (share, height) steps, with a gradient from one colour to the other."""
    (inner, high), (outer, low) = steps
    for at in range(64):
        points = [(*_coast_point(inner, at), high), (*_coast_point(outer, at), low)]
        points += [(*_coast_point(outer, at + 1), low), (*_coast_point(inner, at + 1), high)]
        uvs = [(x / 40, -y / 40) for x, y, _ in points]
        mesh.add_face(texture, points, uvs=uvs, tints=(colours[0], colours[1], colours[1], colours[0]))


def _add_streets(mesh: Mesh, cell: GridCell) -> None:
    """Add the street surface of one cell, with a low wall at the edge of the city."""
    x, y = _west_edge_m(cell[0]), _south_edge_m(cell[1])
    ring = (x, y), (x + CELL_PITCH_M, y), (x + CELL_PITCH_M, y + CELL_PITCH_M), (x, y + CELL_PITCH_M)
    corners = [(east, north, STREET_LEVEL_M) for east, north in ring]
    uvs = (0.0, 1.0), (1.0, 1.0), (1.0, 0.0), (0.0, 0.0)
    mesh.add_face("street", corners, uvs=uvs, tints=(STREET,) * 4)
    for side, (east, north) in enumerate(((0, -1), (1, 0), (0, 1), (-1, 0))):
        neighbour = cell[0] + east, cell[1] + north
        if not _is_built(neighbour) or cell[0] + neighbour[0] == CANAL_COLUMN * 2 - 1:
            add_walls(
                mesh, (ring[side], ring[(side + 1) % 4]), texture="plain", span=(-0.2, STREET_LEVEL_M), colour=STONE
            )


def _add_canal(mesh: Mesh) -> None:
    """Add the canal: water between two quays, open to the sea at both ends, and a bridge at every street."""
    east = _west_edge_m(CANAL_COLUMN)
    west, end = east - CANAL_WIDTH_M, 960.0
    add_cap(mesh, _make_rectangle(west, -end, east, end), texture="water", height=0.3, colour=SEA[2])
    for row in range(1, GRID_CELLS):
        deck = _make_rectangle(west, _south_edge_m(row) - 8, east, _south_edge_m(row) + 8)
        add_walls(mesh, deck, texture="plain", span=(0.6, 2.0), colour=STONE)
        add_cap(mesh, deck, texture="plain", height=2.0, colour=STONE)
        add_cap(
            mesh,
            _make_rectangle(west, _south_edge_m(row) - 6.5, east, _south_edge_m(row) + 6.5),
            texture="plain",
            height=2.1,
            colour=ASPHALT,
        )


def _make_rectangle(west: float, south: float, east: float, north: float) -> Ring:
    return (west, south), (east, south), (east, north), (west, north)


def _build_shores(dice: Random) -> Mesh:
    """Build trees along the meadow and sailing boats off the beach, all around the island."""
    mesh = Mesh()
    for at in range(128):
        spot, height = _coast_point(random_between(dice, 0.93, 0.965), at / 2), random_between(dice, 6, 13)
        crown = (0.25 * height, 0.0), (0.4 * height, 0.5 * height), (0.0, height)
        if not -CANAL_WIDTH_M - 5 < spot[0] - _west_edge_m(CANAL_COLUMN) < 5:
            add_lathe(mesh, spot, texture="leaves", profile=crown, sides=5, colour=PINE)
    for at in range(0, 64, 4):
        _add_boat(mesh, _coast_point(random_between(dice, 1.15, 1.7), at))
    return mesh


def _add_boat(mesh: Mesh, spot: GroundPoint) -> None:
    """Add a boat: a hull with a deck, a foresail and a mainsail; the sails have two sides."""
    x, y = spot
    hull = (x - 3, y - 2), (x + 4, y - 2), (x + 8, y), (x + 4, y + 2), (x - 3, y + 2)
    add_walls(mesh, hull, texture="plain", span=(-2.2, -0.6), colour=HULL)
    add_cap(mesh, hull, texture="plain", height=-0.6, colour=DECK)
    for foot, mast in ((-3.0, 1.0), (6.5, 1.5)):
        sail = [(x + foot, y, 0.8), (x + mast, y, 0.8), (x + mast, y, 13.0)]
        for corners in (sail, sail[::-1]):
            mesh.add_face("plain", corners, uvs=((0.0, 1.0), (1.0, 1.0), (1.0, 0.0)), tints=(SAIL,) * 3)
