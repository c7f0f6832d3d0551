"""Low-rank adapters on the weights of one base: rows of several adapters and of the bare base in one step."""
