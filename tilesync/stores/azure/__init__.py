"""Destinations in Azure Blob Storage."""
