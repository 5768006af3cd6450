"""What people report of service providers, relying parties and files, and what must come of it here.

`index.tsv` has a row for each case: its file, what it is about, what must be seen, and the report it is made after.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.field.lab import HERE, Case, Lab, open_lab, read_cases

CASES = read_cases()


@pytest.fixture(scope="module")
def lab(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("field")
    shutil.copyfile(migrated_sqlite, folder / "field.db")
    with open_lab(folder, f"sqlite:///{folder / 'field.db'}") as opened:
        yield opened


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.file.rpartition("/")[2].rpartition(".")[0])
def test_what_comes_of_a_case_of_the_field(case: Case, lab: Lab) -> None:
    seen = lab.see(case)
    assert case.agrees(seen), f"{case.what} ({case.source})\nexpected {case.expect}\nseen {seen}"


def test_every_file_belongs_to_a_case() -> None:
    named = {case.file for case in CASES} | {case.told.get("metadata", case.file) for case in CASES}
    assert {str(path.relative_to(HERE)) for path in HERE.glob("*/*.*") if path.suffix in (".json", ".xml")} == named
