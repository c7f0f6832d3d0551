"""What can be learnt, one class each behind one protocol (`protocol.Objective`)."""
