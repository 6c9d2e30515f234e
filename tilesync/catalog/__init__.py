"""Catalog: the embedded SQLite state of a destination.

catalog      versions, file inventory, stored files; the class that the jobs use
duplicates   stored files of other versions with the same content, found by digest
history      last runs of the mirror, as one JSON value
listing_rows rows of a listing page, inserted by a few statements of many rows
references   which file references which, completeness, missing and damaged files
schema       tables, conversion between rows and the model, the database opened with them
sqlite       one SQLite connection: transactions, migrations, error translation
stale_files  files that older versions left in a folder that all versions share
stored_rows  rows of files that were read in place, inserted by a few statements of many rows
unchanged    wanted files that an earlier version stores under the same name with the same content
"""
