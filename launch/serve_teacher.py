"""Serve a teacher with vLLM: serve_teacher.sh, which says how, as a console command."""

import os
import sys
from pathlib import Path


def run():
    """Becomes the script, with the arguments of the command."""
    script = Path(__file__).with_suffix(".sh")
    os.execvp("bash", ["bash", str(script), *sys.argv[1:]])


if __name__ == "__main__":
    run()
