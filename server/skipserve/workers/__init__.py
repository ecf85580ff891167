"""Processes of ours that do for clients what may take too long, or crash."""
