"""Where tiles come from: the container of an export, or what tilesync mirrored before."""
