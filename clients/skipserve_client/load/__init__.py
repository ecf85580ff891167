"""Load on a server, of skipserve or any that speaks OpenAI's form, and what it took."""
