"""Destinations in a local folder."""
