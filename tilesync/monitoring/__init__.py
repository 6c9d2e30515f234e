"""Monitoring of mirrors: their status, computed from their history, for people and for monitors.

metrics          metrics for Prometheus
outcome_command  commands that run after a run
ping             pings to a service in the manner of healthchecks
service_manager  notifications to systemd
sparkline        small charts of the last runs
status           status of a mirror: fresh, stale or failing, with the reasons
status_page      one HTML page about mirrors
"""
