"""Monitoring of mirrors: their status, computed from their history, for people and for monitors.

sparkline    small charts of the last runs
status       status of a mirror: fresh, stale or failing, with the reasons
status_page  one HTML page about mirrors
"""
