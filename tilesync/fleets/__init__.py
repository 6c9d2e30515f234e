"""Fleets: many mirrors from one file, under one budget.

aio           the Python API of fleets
entry_checks  checks of whole `[[mirror]]` entries
file          a fleet file read into settings
forecast      what is to be moved, and whether it fits
job_places    how many mirrors run at once, and which comes next
journal       histories stored a few times a second
mirror_run    one mirror: search, wait, mirror, fill further destinations
mistakes      mistakes in a fleet file
monitor       live view of a run, the last JSON line, the report
night         one run of a fleet
option_table  options of `mirror` in a fleet file
outcome       outcomes, exit code, sums
places        safe names and places from templates
roster        the mirrors of a night
secrets       secrets read from where the file refers to
settings      settings of a fleet and its mirrors
state         places and histories in a database
window        when a run stops by itself
"""
