"""The documentation claims of clients what the tests of this folder run."""

from pathlib import Path

from tests.clients.table import page

PAGE = Path(__file__).parents[2] / "docs" / "pytorch.md"


def test_the_table_of_clients_is_what_is_tested(golden):
    golden.check(PAGE, page(PAGE.read_text(encoding="utf-8")))
