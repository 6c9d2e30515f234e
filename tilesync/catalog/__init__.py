"""The catalog: the embedded SQLite state of a destination."""
