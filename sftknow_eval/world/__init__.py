"""The embedded mini-world: fictional facts and a small base model that learned them."""
