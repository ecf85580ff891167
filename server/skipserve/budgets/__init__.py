"""Who asks, and what it may cost: API keys, their budgets, and what they have used."""
