"""A signed link that must not appear in any output."""

from __future__ import annotations

from urllib.parse import quote

SIG = "AbC9dEf/gHi+JkLmNoPqRsTuVwXyZ0123456789abcd="


QUERY = f"sv=2023-11-03&se=2026-03-01T09%3A30%3A00Z&sr=c&sp=rl&sig={quote(SIG, safe='')}"


LINK = f"https://account.blob.core.windows.net/e1?{QUERY}"
