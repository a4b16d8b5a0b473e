"""Look the locked packages up among known vulnerabilities: `make audit`.

Exit codes: 0 nothing known, 1 vulnerabilities found, 3 no answer (nothing was checked).
"""

from __future__ import annotations

import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
# pip-audit's source for each package; this one has a vulnerability on record, so an empty answer is no answer.
PROBE = "https://pypi.org/pypi/jinja2/2.4.1/json"
LOCKS = ("requirements.lock", "torch.lock", "build.lock", "tools.lock")


def service_answers() -> bool:
    """Tell whether the advisory database of PyPI answers, and say why not."""
    try:
        with urllib.request.urlopen(PROBE, timeout=10) as page:
            if b'"vulnerabilities"' in page.read():
                return True
        reason = "its answer holds no vulnerabilities"
    except OSError as error:
        reason = str(error)
    print(f"No audit: {PROBE} does not answer as expected ({reason}). Nothing was checked.", file=sys.stderr)
    return False


def main() -> int:
    """Audit each lock file."""
    if not service_answers():
        return 3
    command = [sys.executable, "-m", "pip_audit", "--progress-spinner", "off", "--disable-pip", "--require-hashes"]
    found = 0
    for name in LOCKS:
        print(f"requirements/{name}", flush=True)
        found |= subprocess.run([*command, "--requirement", str(HERE / name)]).returncode
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
