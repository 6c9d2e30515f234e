"""Basic shapes of the demo city as textured faces; lengths in metres."""

import math

from tilesync.demo.glb import Mesh, Tint, darken

GroundPoint = tuple[float, float]
HeightSpan = tuple[float, float]
Ring = tuple[GroundPoint, ...]

STOREY_HEIGHT_M = 3.3
EDGE_CORNERS = 2


def expand_ring(ring: Ring, margin_m: float) -> Ring:
    """Return the ring with each corner moved `margin_m` metres away from the middle along both axes."""
    x = sum(corner[0] for corner in ring) / len(ring)
    y = sum(corner[1] for corner in ring) / len(ring)
    return tuple((cx + math.copysign(margin_m, cx - x), cy + math.copysign(margin_m, cy - y)) for cx, cy in ring)


def add_walls(
    mesh: Mesh, ring: Ring, *, texture: str, span: HeightSpan, colour: Tint, storey: float = STOREY_HEIGHT_M
) -> None:
    """Add vertical faces around a ring, or along one edge; each has whole window bays and is darker at the foot."""
    low, high = span
    rows = max(1, round((high - low) / storey)) / 4
    dark = darken(colour, 0.72)
    for (ax, ay), (bx, by) in zip(ring, ring[1:] + ring[:1] if len(ring) > EDGE_CORNERS else ring[1:], strict=False):
        bays = max(1, round(math.hypot(bx - ax, by - ay) / STOREY_HEIGHT_M)) / 4
        corners = (ax, ay, low), (bx, by, low), (bx, by, high), (ax, ay, high)
        uvs = (0.0, rows), (bays, rows), (bays, 0.0), (0.0, 0.0)
        mesh.add_face(texture, corners, uvs=uvs, tints=(dark, dark, colour, colour))


def add_cap(mesh: Mesh, ring: Ring, *, texture: str, height: float, colour: Tint) -> None:
    """Add a horizontal face, visible from above; its texture repeats every eight metres."""
    corners = [(x, y, height) for x, y in ring]
    mesh.add_face(texture, corners, uvs=[(x / 8, -y / 8) for x, y in ring], tints=[colour] * len(ring))


def add_lathe(
    mesh: Mesh, spot: GroundPoint, *, texture: str, profile: tuple[GroundPoint, ...], sides: int, colour: Tint
) -> None:
    """Add a smooth solid of revolution, darker at the foot; `profile` gives (radius, height) from bottom to top."""
    triangles = mesh.triangles.setdefault(texture, [])
    low: list[int] = []
    for at, (radius, height) in enumerate(profile):
        (r0, z0), (r1, z1) = profile[max(0, at - 1)], profile[min(len(profile) - 1, at + 1)]
        lean = (z1 - z0, r0 - r1) if radius else (0.0, 1.0)
        tone = darken(colour, 0.55 + 0.45 * at / (len(profile) - 1))
        high = _add_level(mesh, spot, level=(radius, height), lean=lean, sides=sides, colour=tone)
        for a, b, c, d in zip(low, low[1:] + low[:1], high[1:] + high[:1], high, strict=False):
            triangles += (a, b, d, b, c, d) if radius else (a, b, d)
        low = high


def _add_level(
    mesh: Mesh, spot: GroundPoint, *, level: tuple[float, float], lean: tuple[float, float], sides: int, colour: Tint
) -> list[int]:
    """Add the vertices of one level (radius, height) with normal `lean` (outward, upward); a point is one vertex."""
    radius, height = level
    out, up = (part / math.hypot(*lean) for part in lean)
    ring = []
    for side in range(sides if radius else 1):
        x, y = math.cos(math.tau * side / sides), math.sin(math.tau * side / sides)
        point = spot[0] + radius * x, spot[1] + radius * y, height
        ring.append(mesh.add_vertex(point, (out * x, out * y, up), uv=(side / 2, height / 4), colour=colour))
    return ring if radius else ring * sides


def add_pitched_roof(mesh: Mesh, ring: Ring, *, span: HeightSpan, inset: float, roof: Tint, wall: Tint) -> None:
    """Add a roof over four corners from eaves to ridge (`span`), with the ridge along the first edge.

    The ridge ends `inset` metres short of the roof at both ends: 0 makes gables, more makes hips.
    """
    a, b, c, d = expand_ring(ring, 0.4)
    length = math.hypot(b[0] - a[0], b[1] - a[1])
    east, north = (b[0] - a[0]) / length * inset, (b[1] - a[1]) / length * inset
    start = (a[0] + d[0]) / 2 + east, (a[1] + d[1]) / 2 + north, span[1]
    end = (b[0] + c[0]) / 2 - east, (b[1] + c[1]) / 2 - north, span[1]
    sw, se, ne, nw = ((x, y, span[0]) for x, y in (a, b, c, d))
    uvs = (0.0, 2.0), (length / 4, 2.0), (length / 4, 0.0), (0.0, 0.0)
    for slope in ((sw, se, end, start), (ne, nw, start, end)):
        mesh.add_face("tiles", slope, uvs=uvs, tints=[roof] * 4)
    for gable in ((se, ne, end), (nw, sw, start)):
        mesh.add_face("tiles" if inset else "plain", gable, uvs=uvs[:3], tints=[roof if inset else wall] * 3)
