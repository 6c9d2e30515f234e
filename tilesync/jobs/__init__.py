"""The jobs: they know protocols and rules only, never an adapter."""
