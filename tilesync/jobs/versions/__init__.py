"""The versions of a destination: begun, finished, pointed at, laid out, listed, rolled back."""
