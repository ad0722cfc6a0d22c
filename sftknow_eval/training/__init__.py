"""Fine-tuning on facts of chosen mastery, by TRL."""
