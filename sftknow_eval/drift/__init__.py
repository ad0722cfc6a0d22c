"""What fine-tuning moved: relative change of the weights and divergence of the outputs."""
