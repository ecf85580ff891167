"""What a request computes: skip policies, the plans they resolve to, and what they cost."""
