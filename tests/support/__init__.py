"""Test support.

azure_destination      open and run against a destination on Azurite
azure_proxy            the container behind a proxy with faults
azurite                Azurite, SAS links and a reverse proxy
builders               small valid tilesets and exports
catalog_fixture        a catalog with one version
clock                  a fake clock
commandline            run tilesync as a process
crash_injection        simulate a crash at a chosen call
demo_picture           the picture of the demo city
doc_pages              run the blocks of a documentation page in a shell
doc_service            what the pages run against
fake_destination       a destination in memory
faults                 faults of the fake service
s3                     moto, an S3 server, and a proxy with faults
samples                real tilesets as test data
sequential_exports     exports of consecutive days
simulator              the fake service with faults; run jobs against it
store_contract         conformance tests of a destination
viewer_walk            files of a tileset that a viewer can request
viewers                real viewers in a headless Chromium
web_servers            nginx and Caddy with the configurations of docs/hosting.md
"""
