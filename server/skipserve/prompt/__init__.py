"""From messages to token ids and the class of each position."""
