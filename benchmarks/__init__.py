"""Speed and accuracy of musax beside other implementations. Run: `python -m benchmarks`."""
