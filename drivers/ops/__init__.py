"""The op table: what an accelerator driver may serve faster."""
