"""The end of programs that a scenario started."""

import subprocess


def reap(process, seconds=15):
    """Waits for one that was told to end, and kills it if it does not."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
