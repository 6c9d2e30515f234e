"""HTTP server for tilesets: mirrors, packages and live exports, with a viewer page.

tilesets  a tileset that is served, and a file of it
"""
