"""Where tiles come from: identity, exports, the link that stays alive, and the container behind it."""
