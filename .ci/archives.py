"""Check the contents of the wheel and the sdist in a folder: ``python .ci/archives.py FOLDER``.

The wheel must contain the package with ``py.typed``, and nothing else. The sdist must also contain everything needed to test and
document the package. The metadata must state version, license, Python versions and extras, and include the README.
"""

import sys
import tarfile
import zipfile
from email import message_from_string
from email.message import Message
from pathlib import Path

FIELDS = ("Name", "Version", "Summary", "License-Expression", "License-File", "Requires-Python", "Keywords", "Classifier")
IN_SDIST = ("README.md", "CHANGELOG.md", "LICENSE", "constraints.txt", "pyproject.toml", "tests/conftest.py", "docs/kernels.md")


def wheel_problems(names: list[str]) -> list[str]:
    """List the problems with the files of a wheel."""
    tops = {name.partition("/")[0] for name in names}
    strange = sorted(top for top in tops if top != "funcnet" and not top.endswith(".dist-info"))
    missing = [name for name in ("funcnet/py.typed", "funcnet/__init__.py") if name not in names]
    compiled = [name for name in names if name.endswith(".pyc")]
    return [f"the wheel lacks {name}" for name in missing] + [f"the wheel holds {name}" for name in [*strange, *compiled]]


def sdist_problems(names: list[str]) -> list[str]:
    """List the files missing from an sdist; its file names begin with its folder."""
    inner = {name.partition("/")[2] for name in names}
    return [f"the sdist lacks {name}" for name in IN_SDIST if name not in inner]


def metadata_problems(metadata: Message, version: str) -> list[str]:
    """List the problems with the metadata."""
    problems = [f"the metadata lacks {field}" for field in FIELDS if not metadata.get(field)]
    if metadata.get("Version") != version:
        problems.append(f"the version must be {version}, got {metadata.get('Version')}")
    if metadata.get("Description-Content-Type") != "text/markdown" or "funcnet" not in str(metadata.get_payload()):
        problems.append("the metadata must include the README as Markdown")
    return problems


def version_of(source: str) -> str:
    """Return the version declared in the package's source."""
    return next(line.split('"')[1] for line in source.splitlines() if line.startswith("__version__"))


def main(folder: str) -> int:
    """Print all problems, and return the exit status."""
    (wheel,), (sdist,) = Path(folder).glob("*.whl"), Path(folder).glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
        metadata = message_from_string(opened.read(next(n for n in names if n.endswith(".dist-info/METADATA"))).decode())
        version = version_of(opened.read("funcnet/__init__.py").decode())
    with tarfile.open(sdist) as opened_sdist:
        problems = sdist_problems(opened_sdist.getnames())
    problems += [*wheel_problems(names), *metadata_problems(metadata, version)]
    print("\n".join([*problems, f"{wheel.name}, {sdist.name}: {len(problems)} problems"]))
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
