"""`python -m isaerft.cli` is `isaerft`."""

import sys

from isaerft.cli import main

sys.exit(main())
