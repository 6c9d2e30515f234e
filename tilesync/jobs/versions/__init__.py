"""The versions of a destination: begin, check, publish, point at, lay out, list and roll back.

completeness      check that every file that the tilesets refer to is stored, and whole
file_check        read stored files again, or verify them, also in worker processes
flat_layout       move a version into the flat layout, and delete stale files of earlier ones
gzip_files        count the files that are stored as gzip
last_success      `checked.json`: the time of the last successful run
lifecycle         versions during a run: create, resume, relist, recheck
listing           list versions, exports at risk of deletion, and SHA-256 sums
ownership         the owner of a destination: check, claim, adopt
pointer           the pointer to the current version, its pin, and `latest.json`
presence          check for a bounded time that published files are still there
publish           publish a version: check it, then write its manifest
rebuild_catalog   rebuild a lost catalog from manifests and files
resolve           find the version that a name, a prefix or `current` means
rollback          point at an older version, or at the newest again
run_history       the record of each run in the history of its destination
startup           bring catalog and manifests in line before a run
subtree_walk      follow the subtrees of implicit tilesets
"""
