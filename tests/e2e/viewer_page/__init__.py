"""Tests of the viewer page in a browser, with the real server."""
