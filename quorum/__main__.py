"""`python -m quorum` runs the command `quorum`."""

import sys

from quorum.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
