"""Charge credits for every AI call of a FastAPI service through Autumn."""
