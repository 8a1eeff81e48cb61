"""One measured folder for all tests of the report."""

from pathlib import Path

import pytest

from joyflash_cli.report.write import write_report
from report.clips import write_folder


@pytest.fixture(scope="session")
def batch_folder(tmp_path_factory) -> Path:
    """A batch's folder with ``report.html`` in it."""
    folder = write_folder(tmp_path_factory.mktemp("report") / "run 1")
    write_report(folder)
    return folder
