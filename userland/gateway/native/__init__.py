"""The project's own REST, derived from the call table, its OpenAPI document, KServe and the three short routes."""
