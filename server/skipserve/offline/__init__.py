"""The engine without a server: questions in, answers out, in the process that asks."""
