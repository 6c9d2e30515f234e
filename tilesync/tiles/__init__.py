"""The formats of 3D Tiles and glTF, read as streams, without I/O."""
