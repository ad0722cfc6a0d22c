"""One live engine over many ratios: what restoring more and more weights does to scores."""
