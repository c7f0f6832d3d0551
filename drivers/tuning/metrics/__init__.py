"""How good a model is: tensors on the CPU in, numbers out; nothing here knows a module or a device."""
