"""The table of clients in docs/pytorch.md, written from what the tests run."""

from tests.clients import sides, transforms  # noqa: F401 (its rows are in USES)
from tests.clients.changes import ROWS
from tests.clients.libraries import USES

BEGIN = "<!-- written by `pytest --golden tests/clients/test_table.py` -->\n"
END = "<!-- end -->\n"


def table() -> str:
    """All rows, as Markdown; a client that has several is named in the first."""
    lines = [
        "| client | what the test does | on a CPU | on kernels | kernels run |",
        "| --- | --- | --- | --- | --- |",
    ]
    before = ""
    rows = [(r.client, r.about, f"{r.regions} of {sides.REGIONS} regions") for r in ROWS]
    rows += [(u.client, u.about, "") for u in USES]
    for client, about, regions in rows:
        name = "" if client == before else client
        lines.append(f"| {name} | {about} | equal | equal | {regions} |".replace("|  |", "| |"))
        before = client
    return "\n".join(lines) + "\n"


def page(text: str) -> str:
    """The page with the table in its place."""
    first, rest = text.split(BEGIN)
    return f"{first}{BEGIN}{table()}{END}{rest.split(END)[1]}"
