"""3D Tiles: formats of tiles and tilesets, the files they reference, and checks of both, without I/O.

availability     expands a subtree into its contents and child subtrees
binary_formats   streaming parser of GLB, b3dm, i3dm, pnts, cmpt and subtree files
graph            cycles and order of tilesets that reference each other
header           references read from the beginning of a file
implicit_tiling  root tile of implicit tiling, template URIs, subtree files
json_documents   members that name files in tilesets and glTF; re-basing of a tileset
json_scanner     streaming JSON scanner with byte positions, in bounded memory
references       references and diagnostics of one document
uris             resolves a URI to a blob of the container
validator        checks size, digests, kind and structure of one blob
"""
