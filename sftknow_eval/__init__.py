"""Measure what supervised fine-tuning does to the knowledge of a language model."""

__version__ = "0.1.0"
