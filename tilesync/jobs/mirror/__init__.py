"""Mirror job: bring exports of a source into a destination.

all_exports           mirror every finished export, oldest first
cleanup               repair damaged versions, retire old ones, empty the trash
dry_run               plan a run without changing the destination
dry_run_consequences  guards that would stop a planned run, files and versions that it would remove
dry_run_walk          inventory of a dry run without a listing: walk the tilesets
inventory             ingest the listing of a container into the catalog; warn about useless globs
job                   the mirror job of one export
options               the options of one run
pointer_update        move the pointer to the completed version, if nothing forbids it
publish_hook          run a hook once after the pointer has moved
unchanged             compare a container with a stored version
version_transfer      fetch the wanted files of one version
"""
