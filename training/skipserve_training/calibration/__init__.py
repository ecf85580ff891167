"""Finds the skip policies that cost a model's answers least, and measures them."""
