"""`python -m llmos.userland.cli`."""

from .main import main

raise SystemExit(main())
