"""How weights are rounded to few bits: pure maths on tensors."""
