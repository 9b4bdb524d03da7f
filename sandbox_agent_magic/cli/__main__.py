"""`python -m sandbox_agent_magic.cli`, where the `sandbox-agent` script is not on the path."""

import sys

from . import main

sys.exit(main())
