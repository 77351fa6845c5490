"""`python -m directcm.cli`."""

import sys

from directcm.cli import entry

sys.exit(entry())
