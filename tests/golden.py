"""The one golden mechanism: files that a test compares, rewritten by one flag, `--golden`."""

from difflib import unified_diff
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden",
        action="store_true",
        help="write the golden files anew instead of comparing them; read the diff afterwards",
    )


class Golden:
    """Compares a file with what it should hold; with `--golden`, makes it so."""

    def __init__(self, rewrite: bool) -> None:
        self.rewrite = rewrite

    def check(self, path: Path, wanted: str) -> None:
        """Fail with a diff unless the file holds exactly this text."""
        held = path.read_text(encoding="utf-8") if path.is_file() else None
        if held == wanted:
            return
        if self.rewrite:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted, encoding="utf-8")
            return
        if held is None:
            pytest.fail(f"{path} is missing: `pytest --golden` writes it", pytrace=False)
        lines = held.splitlines(keepends=True), wanted.splitlines(keepends=True)
        diff = "".join(unified_diff(*lines, str(path), "what the program gives now"))
        pytest.fail(f"{diff}\nif this is right: `pytest --golden`", pytrace=False)


@pytest.fixture(scope="session")
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(request.config.getoption("golden"))
