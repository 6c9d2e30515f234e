"""One run of a fleet.

forecast    what is to be moved, and whether it fits
job_places  how many mirrors run at once, and which comes next
journal     histories of the mirrors, stored a few times a second
mirror_run  one mirror: search, wait, mirror, fill further destinations
run         the whole run: list, make the roster, run the mirrors
window      when the run stops by itself
"""
