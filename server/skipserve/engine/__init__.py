"""Runs requests: scheduling, batches, sampling, the engine process. Knows no HTTP."""
