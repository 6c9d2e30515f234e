"""The network: conversations through httpx, bodies through the bulk engine. Foreign errors are mapped here."""
