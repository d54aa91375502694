"""Entry of `benchmarks.harness.run_pinned`: one core, then the work. Prints JSON."""

import importlib
import json
import os
import sys


def main() -> None:
    """Run `module:function` of the command line with its JSON arguments."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    module, function = sys.argv[1].split(":")
    result = getattr(importlib.import_module(module), function)(**json.loads(sys.argv[2]))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
