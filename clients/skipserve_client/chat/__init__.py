"""Talks to a model in a terminal, or line by line from a pipe."""
