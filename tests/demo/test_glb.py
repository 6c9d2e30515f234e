"""GLBs of the demo: buffers, accessors, and the direction of faces."""

import struct

from tests.support.demo_glbs import dot, split_all_glbs, split_glb


def test_accessors_and_views_fit_their_buffers(files: dict[str, bytes]) -> None:
    """Every view is inside the buffer, every accessor inside its view, and the bounds match the stored positions."""
    for name, (document, body) in split_all_glbs(files).items():
        (buffer,) = document["buffers"]
        assert buffer["byteLength"] <= len(body) <= buffer["byteLength"] + 3, name
        views = document["bufferViews"]
        assert all(view["byteOffset"] % 4 == 0 for view in views)
        assert all(view["byteOffset"] + view["byteLength"] <= buffer["byteLength"] for view in views)
        position = document["accessors"][0]
        start, stride = views[0]["byteOffset"], views[0]["byteStride"]
        assert position["count"] * stride == views[0]["byteLength"]
        points = [struct.unpack_from("<3f", body, start + stride * at) for at in range(position["count"])]
        assert position["min"] == [min(axis) for axis in zip(*points, strict=True)]
        assert position["max"] == [max(axis) for axis in zip(*points, strict=True)]


def test_indices_name_vertices_and_faces_turn_outwards(files: dict[str, bytes]) -> None:
    """Each triangle is counter-clockwise as seen from the direction of its normals."""
    document, body = split_glb(files["district-05/block-4-fine.glb"])
    stride, count = document["bufferViews"][0]["byteStride"], document["accessors"][0]["count"]
    vertices = [struct.unpack_from("<6f", body, stride * at) for at in range(count)]
    for primitive in document["meshes"][0]["primitives"]:
        accessor = document["accessors"][primitive["indices"]]
        view = document["bufferViews"][accessor["bufferView"]]
        indices = struct.unpack_from(f"<{accessor['count']}H", body, view["byteOffset"])
        for a, b, c in zip(*(map(vertices.__getitem__, indices[at::3]) for at in range(3)), strict=True):
            u, v = [b[i] - a[i] for i in range(3)], [c[i] - a[i] for i in range(3)]
            facing = u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]
            mean = [a[i] + b[i] + c[i] for i in range(3, 6)]
            assert dot(facing, mean) > 0
