"""Recipes that make models for skipserve; nothing of the server imports this package."""
