"""Quality on the demo model's own data: scenes, questions about them, and scoring."""
