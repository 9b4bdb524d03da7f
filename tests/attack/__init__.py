"""The sandbox, attacked for real."""
