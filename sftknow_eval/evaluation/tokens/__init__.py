"""Token drift: the next-token distributions of a fine-tune and of its base, fact by fact."""
