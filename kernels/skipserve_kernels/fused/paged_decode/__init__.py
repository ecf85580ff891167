"""Attention of one row a sequence over its keys and values, which lie in pages."""
