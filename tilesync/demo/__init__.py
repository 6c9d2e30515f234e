"""Demo of `tilesync demo`: a fake service on loopback, and a generated city for it.

api_rate         rate limit of the API, and the times of its calls
buildings        a city block and its levels of detail
city             the whole city as a 3D Tiles export
city_plan        random plans for blocks, by kind of neighbourhood
fake_service     a fake of the service's APIs and of Azure storage; `tilesync.testing` and tests use it too
faults           faults that affect some requests
geometry         walls, roofs and turned shapes as faces
glb              encode a mesh as binary glTF
itwin_directory  iTwins and iModels: their APIs, and what an identity may see
loopback_server  HTTP/1.1 server
scenario         the fake service of the demo, with its faults
textures         textures as PNG
"""
