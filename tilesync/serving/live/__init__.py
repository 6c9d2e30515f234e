"""Live exports: the container of an export behind a stable local address, through a cache in memory.

blob_files       a file of the container, from the cache or streamed
cache            files in memory, bounded in bytes
container_files  the files of one container: one download for concurrent requests, retries
context          clock, events, limits and cache that all exports of a server share
follower         look for newer exports, and for changes of the current one
open_exports     the exports that are open: the current one and those before it
tileset          the tileset that the server offers
"""
