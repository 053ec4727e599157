"""`python -m ifttn`, and so `torchrun ... -m ifttn`: the `ifttn` command."""

import sys

from ifttn.cli import main

sys.exit(main())
