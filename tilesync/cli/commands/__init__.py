"""The commands, one per file: each parses its arguments, calls the Python API and prints.

completion  `tilesync completion`
config      `tilesync config`
demo        `tilesync demo`
diff        `tilesync diff`
doctor      `tilesync doctor`
exports     `tilesync exports`
link        `tilesync link`
mirror      `tilesync mirror`
pack        `tilesync pack`
rollback    `tilesync rollback`
status      `tilesync status`
verify      `tilesync verify`
versions    `tilesync versions`
"""
