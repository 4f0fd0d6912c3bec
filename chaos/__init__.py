"""Thousands of calls while everything breaks, and then the books: `make chaos`."""
