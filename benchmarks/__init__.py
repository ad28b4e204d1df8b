"""Programs that measure the zoo: `python -m benchmarks.speed`, `.quality` and `.readme`. They are not installed."""
