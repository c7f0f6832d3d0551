"""What the arbiter decides, as pure policies: who stays in memory, whose turn it is, who may use how much."""
