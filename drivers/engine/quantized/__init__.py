"""Models with quantized weights: loaded so, or quantized while they are loaded."""
