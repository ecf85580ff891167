"""Causal attention of many rows a sequence over its keys and values, which lie in pages."""
