"""Run pyright: the examples must be clean, and every wrong line of ``tests/house/wrong_types.py`` must be reported.

``python .ci/check_pyright.py [FILE OR FOLDER ...]``, by default the examples. The wheels of ``basedpyright``, from the extra
``dev``, bundle pyright and Node. pyproject.toml selects the rules of its standard mode.
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CASES = ROOT / "tests" / "house" / "wrong_types.py"


def errors_in(*paths: str) -> list[tuple[str, int, str, str]]:
    """Return the file, line, rule and message of each error in files or folders."""
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable, *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode not in (0, 1):
        raise RuntimeError(done.stdout + done.stderr)
    found = [one for one in json.loads(done.stdout)["generalDiagnostics"] if one["severity"] == "error"]
    return [(one["file"], one["range"]["start"]["line"] + 1, one.get("rule", "syntax"), one["message"]) for one in found]


def expected() -> set[tuple[int, str]]:
    """Return the lines that must be reported, each with its rule."""
    lines = enumerate(CASES.read_text(encoding="utf-8").splitlines(), 1)
    return {(number, line.split()[-1]) for number, line in lines if "  # E: " in line}


def main(paths: list[str]) -> int:
    """Print all problems, and return the exit status."""
    problems = [f"{file}:{line}: {message.splitlines()[0]} [{rule}]" for file, line, rule, message in errors_in(*paths)]
    found = {(line, rule) for _, line, rule, _ in errors_in(str(CASES))}
    problems += [f"{CASES}:{line}: must be reported by {rule}" for line, rule in sorted(expected() - found)]
    problems += [f"{CASES}:{line}: must not be reported by {rule}" for line, rule in sorted(found - expected())]
    print("\n".join([*problems, f"pyright: {len(problems)} problem{'s' * (len(problems) != 1)}"]))
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["examples"]))
