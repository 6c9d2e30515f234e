"""Fleets: many mirrors from one file, under one budget.

settings      settings of a fleet and its mirrors: values
"""
