"""Sources of a mirror run: the container of an export, or another tilesync mirror.

blob_response     checks on the response to a GET of a blob
container         source: list and read the container of an export
followed_link     resolver: the container of the link that a command prints now
listing_response  checks on the response to a listing request, and its body
mirror_files      source: list and read the files of a version in another mirror
mirror_resolver   resolver: choose versions of another mirror
pages_ahead       pages of a listing that are requested ahead
resolvers         resolvers: choose exports of an iModel, or the container of a link
"""
