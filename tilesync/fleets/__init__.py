"""Fleets: many mirrors from one file, under one budget.

aio      the Python API of fleets
file     the file of a fleet, read and checked (a package)
monitor  live view of a run, the last JSON line, the report
night    one run of a fleet (a package)
outcome  outcomes of mirrors, the exit code, sums
places   safe names, and places from templates
roster   the mirrors of a night
state    places and histories, in a database
status   status of the mirrors, from file and state
sync     the Python API of fleets, for blocking code
"""
