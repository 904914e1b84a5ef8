"""Says which packages training lacks, and the command that installs them, before they are imported.

Imported first by `cnndsl.train`. Must import none of those packages.
"""

from importlib.util import find_spec

# What is imported, and what the package is called where it is installed from.
_NEEDED = {
    "torch": "torch",
    "safetensors": "safetensors",
    "rich": "rich",
    "PIL": "pillow",
    "sklearn": "scikit-learn",
}


def missing() -> list[str]:
    """The packages that training needs and that are not installed."""
    return [package for module, package in _NEEDED.items() if find_spec(module) is None]


def complaint(packages: list[str]) -> str:
    """One sentence and the one command that mends it."""
    return (
        f"training needs {' and '.join(packages)}, which {'is' if len(packages) == 1 else 'are'} "
        "not installed\n  help: pip install 'cnndsl[train]'"
    )


if _absent := missing():
    raise ModuleNotFoundError(complaint(_absent), name=_absent[0])
