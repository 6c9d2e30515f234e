"""The iTwin service: identity, and the Mesh Export API."""
