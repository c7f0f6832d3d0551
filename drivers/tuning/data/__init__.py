"""From files of rows to batches of tokens: read, checked, split, encoded, packed."""
