"""What comes back: recipes that return the most changed weights to their base values."""
