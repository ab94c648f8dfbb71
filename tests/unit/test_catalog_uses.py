"""When files were last used, as the catalog keeps it."""

from __future__ import annotations

from pathlib import Path

from fsxsync.catalog.database import Catalog


def test_the_last_use_is_kept_of_the_last_that_were_used(tmp_path: Path) -> None:
    file = tmp_path / "catalog.db"
    catalog = Catalog.open(file)
    catalog.uses.put_many([(ino, ino * 10) for ino in range(1, 8)], keep=5)
    catalog.uses.put_many([(3, 1000), (2**64 - 1, 2000)], keep=3)
    catalog.close()

    catalog = Catalog.open(file)
    found = {ino: catalog.uses.get(ino) for ino in (1, 3, 6, 7, 2**64 - 1)}
    catalog.close()
    assert found == {1: 0, 3: 1000, 6: 0, 7: 70, 2**64 - 1: 2000}
