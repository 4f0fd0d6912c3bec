"""Small adapters, one module for each framework. Each imports its framework, so nothing here is loaded by itself."""

__all__: list[str] = []
