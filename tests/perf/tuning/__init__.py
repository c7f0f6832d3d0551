"""Tuning beside plain PEFT and Trainer, and beside serving."""
