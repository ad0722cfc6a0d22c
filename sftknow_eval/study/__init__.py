"""A study: one file says which models are probed, trained, asked, restored and compared."""
