"""`python -m sandbox_agent_magic.settings` prints the text of `env.example`."""

from .table import env_example

print(env_example(), end="")
