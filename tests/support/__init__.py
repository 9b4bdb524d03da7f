"""Servers and helpers that several suites use."""
