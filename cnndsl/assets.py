"""The text of the files in grammars/ and kernels/, wherever the package was installed."""

from pathlib import Path


def read(folder: str, name: str) -> str:
    """The text of `folder/name`, such as `grammars/cnn.lark`.

    Installed, the folder is a package inside `cnndsl`; in a plain checkout it stands beside it.
    """
    # `importlib.resources` would do the first half, for a tenth of what a whole check may cost.
    packaged = Path(__file__).parent / folder / name
    sibling = Path(__file__).parent.parent / folder / name
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    return sibling.read_text(encoding="utf-8")
