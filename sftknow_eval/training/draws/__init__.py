"""Which facts a strategy trains on: one small file a way of choosing them."""
