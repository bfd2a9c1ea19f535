"""Puts a deliberate fault, PLANT in the environment, into every process of the product."""

import os
import sys

if os.environ.get("PLANT") and any(word.startswith("testbed") for word in sys.orig_argv):
    import plants

    plants.PLANTS[os.environ["PLANT"]]()
