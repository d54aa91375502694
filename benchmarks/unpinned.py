"""Entry of `benchmarks.harness.run_in_process`: the work as it is. Prints JSON."""

from benchmarks.pinned import run

if __name__ == "__main__":
    run()
