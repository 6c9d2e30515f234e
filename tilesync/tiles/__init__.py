"""3D Tiles: formats of tiles and tilesets, the files they reference, and checks of both, without I/O.

availability     expands a subtree into its contents and child subtrees
binary_formats   streaming parser of GLB, b3dm, i3dm, pnts, cmpt and subtree files
graph            cycles and order of tilesets that reference each other
header           references read from the beginning of a file
implicit_tiling  root tile of implicit tiling, template URIs, subtree files
json_documents   streaming reader of tilesets, subtrees and glTF: the files that they name
json_members     members that name files in these documents
json_scanner     streaming JSON scanner with byte positions, in bounded memory
payload          detects the kind of a file, and parses it
plain_glb        parses a whole ordinary GLB in one step
plain_tileset    parses a whole ordinary tileset in one step
rebase           rewrites the URIs of a tileset for another folder
references       references and diagnostics of one document
uris             resolves a URI to a blob of the container
validator        checks size, digests and payload of one blob
"""
