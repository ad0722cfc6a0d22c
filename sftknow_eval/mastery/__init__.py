"""What the base model knows: facts, templates, samples, counts."""
