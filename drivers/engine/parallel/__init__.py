"""A model over several ranks: one process for each GPU of a device, which compute shares of each step."""
