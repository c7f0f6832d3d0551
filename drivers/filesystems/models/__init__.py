"""/models: a folder of models with manifests and versions."""
