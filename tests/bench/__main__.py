"""``make bench``: every benchmark, one after another. Each prints ratios against something real in the same run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent

for name in ("plan", "routes", "throughput", "interruption", "fleet"):
    print(f"== {name}", flush=True)
    subprocess.run([sys.executable, str(HERE / f"{name}.py")], check=True)
