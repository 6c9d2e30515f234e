"""What `tilesync demo` needs: a stand-in of the service, and a city to put behind it."""
