"""What a fine-tune knows: the lm-eval tasks and the comparison with its base."""
