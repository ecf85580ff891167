"""Chooses the policy of requests that leave the choice to the server."""
