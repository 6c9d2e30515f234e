"""Everything of a version that is wanted: fetched, checked and placed."""
