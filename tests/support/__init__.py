"""Test support.

api_requests        send requests through the API client, on a fake clock
azure_destination   open and run against a destination on Azurite
azure_proxy         the container behind a proxy with faults
azurite             Azurite, SAS links and a reverse proxy
both_clients        fetch a URL with both clients, in a process of its own
broken_exports      mirror a container with broken files; small implicit tilesets
builders            small valid tilesets and exports
catalog_fixture     a catalog with one version
catalog_rows        fill a catalog with listings and stored files
clock               a fake clock
commandline         run tilesync as a process
crash_injection     simulate a crash at a chosen call
demo_glbs           read the GLBs of the demo city
demo_picture        the picture of the demo city
doc_pages           run the blocks of a documentation page in a shell
doc_service         what the pages run against
examples            numbers of generated examples, by profile
fake_destination    a destination in memory
faults              faults of the fake service
forked_command      the program `tilesync` of a shell, which a fork runs
fork_server         a loaded process that forks for each command
gzip_exports        exports with gzip files, and mirrors that unpack them
http1_pools         requests through a connection pool, and servers that count them
http_server         HTTP servers on loopback whose responses a test chooses
json_documents      documents with every kind of URI, and functions that read and re-base them
killed_runs         runs that a test kills, and what they leave
local_destination   open and compare a local destination
mirrored_modules    exceptions of the rule that each module has its test file
memory_source       a source in memory, and a transfer from it
reading_threads     threads that read while a test changes what they read
s3                  moto, an S3 server, and a proxy with faults
sample_secrets      a signed link that must not appear in any output
samples             real tilesets as test data
sequential_exports  exports of consecutive days
simulator           the fake service with faults; run jobs against it
store_contract      conformance tests of a destination
subtrees            build subtrees and implicit tilesets
terminal            run tilesync on a pseudo-terminal
tile_formats        build small files of each tile format
viewer_walk         files of a tileset that a viewer can request
viewers             real viewers in a headless Chromium
web_servers         nginx and Caddy with the configurations of docs/hosting.md
worker_processes    find the worker processes of a run
"""
