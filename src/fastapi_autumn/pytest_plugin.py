"""Fixtures for the tests of applications that charge through Autumn."""
