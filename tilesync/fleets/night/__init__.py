"""One run of a fleet.

forecast         what is to be moved, and whether it fits
forecast_report  the forecast, reported once all exports are known
itwin_lists      lists of the iModels of iTwins, each recorded as a run
job_places       how many mirrors run at once, and which comes next
journal          histories of the mirrors, stored a few times a second
mirror_run       one mirror: search, wait, mirror, fill further destinations
results          how each mirror ended, for the monitor and the history
run              the whole run: list, make the roster, run the mirrors
window           when the run stops by itself
"""
