"""Monitoring of mirrors: their status, computed from their history, for people and for monitors.

status  status of a mirror: fresh, stale or failing, with the reasons
"""
