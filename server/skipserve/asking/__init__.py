"""Questions to requests, tokens to answers: what every way to ask has in common. Knows no HTTP."""
