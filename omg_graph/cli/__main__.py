"""``python -m omg_graph.cli``, where the script ``omg`` isn't on the path."""

import sys

from omg_graph.cli import main

sys.exit(main())
