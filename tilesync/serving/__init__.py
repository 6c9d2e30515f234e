"""HTTP server for tilesets: mirrors, packages and live exports, with a viewer page.

access         the token that requests must have, and the origins whose pages may read the answers
application    the ASGI application: admit a request, answer it with a file of a tileset
comparisons    comparisons of versions, one at a time, shared by all clients
conditions     conditional requests and ranges: the status of an answer, and which bytes it has
connections    limits of a connection: the size of headers, and the time of a request
mirror         a destination or a package as a tileset
name_set       the names of a version, in eight bytes each
reopening      the tileset of a local path, opened again when the path leads elsewhere
request_path   decode the path of a request, and refuse whatever could leave a folder
server         bind the port, run uvicorn, end within two seconds
site           the viewer page at `/`, and JSON documents below `/_tilesync/`
stated_types   media types and encodings that a manifest states
tilesets       a tileset that is served, and a file of it
version_list   the versions of a destination, read anew while it changes
viewer_page    the files of the viewer page
"""
