"""Where tiles go, and the state that says what is there."""
