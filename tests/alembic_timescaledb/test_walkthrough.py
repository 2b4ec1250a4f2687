"""docs/timescale.md is true: it is followed by the `alembic` command, and its errors and operations are those shown."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

from alembic_timescaledb import operations, server
from alembic_timescaledb.server import Edition
from arbstore.database import Database
from tests.alembic_timescaledb.guide import Walker, blocks, section
from tests.alembic_timescaledb.project import LEFT

EXAMPLES = re.findall(r"```python\n(op\.(\w+)\(.*?)```\n+```sql\n(.*?)```", section("Operations"), re.DOTALL)


def models(folder: Path) -> str:
    """Write the models of the walk as they are at its end."""
    walker = Walker(folder, "", Edition.PLAIN)
    for block in blocks():
        if "models.py" in block.text.partition("\n")[0]:
            walker.write(block)
    return (folder / "models.py").read_text()


def is_shown(shown: str, found: str) -> bool:
    """Whether they are the same but for white space, and for what `...` stands for."""
    pattern = re.escape(" ".join(shown.split())).replace(re.escape(" ... "), " .* ")
    return re.fullmatch(pattern, " ".join(found.split())) is not None


async def test_the_walk_is_as_shown(tmp_path: Path, empty_db: Database) -> None:
    async with empty_db.engine.begin() as connection:
        edition = await connection.run_sync(server.enable)
    with Walker(tmp_path, empty_db.engine.url.render_as_string(hide_password=False), edition) as walker:
        for block in blocks():
            await walker.follow(block)
    async with empty_db.engine.connect() as connection:
        assert (await connection.scalars(LEFT, {"schemas": ["public"]})).all() == []


def test_what_is_refused_is_refused_in_these_words(tmp_path: Path) -> None:
    names: dict[str, object] = {}
    exec(compile(models(tmp_path), "models.py", "exec", dont_inherit=True), names)  # noqa: S102 # the page's own
    shown = "".join(block.text + "\n" for block in blocks() if block.language == "pycon")
    test = doctest.DocTestParser().get_doctest(shown, names, "docs/timescale.md", None, 0)
    assert len(test.examples) > 10
    told: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.REPORT_NDIFF)
    runner.run(test, out=told.append)
    assert not told, "".join(told)


def test_every_operation_is_shown() -> None:
    shown = {name for _, name, _ in EXAMPLES}
    assert shown == {
        op.name
        for op in vars(operations).values()
        if isinstance(op, type)
        and issubclass(op, operations.TimescaleOp)
        and op not in (operations.TimescaleOp, operations.GoneWithRelationOp)
    }


async def test_operations_print_what_is_shown_and_work_on_each_edition(tmp_path: Path, empty_db: Database) -> None:
    async with empty_db.engine.begin() as connection:
        edition = await connection.run_sync(server.enable)
        await connection.exec_driver_sql(
            "CREATE TABLE trades (symbol_id int, timestamp timestamptz, price float8,"
            " PRIMARY KEY (symbol_id, timestamp))"
        )
        await connection.exec_driver_sql(
            "CREATE PROCEDURE drop_trades(job_id integer, config jsonb) LANGUAGE plpgsql AS 'BEGIN END'"
        )
    with Walker(tmp_path, empty_db.engine.url.render_as_string(hide_password=False), edition) as walker:
        for block in blocks(section("Install")):
            await walker.follow(block)
        models(tmp_path)
        for number, (call, _, _) in enumerate(EXAMPLES, 1):
            walker.revision(f"{number:04}", "def upgrade():\n" + re.sub("(?m)^(?=.)", "    ", call))
        _, printed = await walker.run("alembic upgrade head --sql")
        for (call, _, shown), part in zip(EXAMPLES, printed.split("-- Running upgrade ")[1:], strict=True):
            found = re.split("(?:INSERT INTO|UPDATE) alembic_version", part.partition("\n")[2])[0]
            assert is_shown(shown, found), (call, found)
        last = f"{len(EXAMPLES):04}"
        code, told = await walker.run(f"alembic upgrade {len(EXAMPLES) - 1:04}")
        assert code == 0, told
        code, told = await walker.run(f"alembic upgrade {last}")
        assert EXAMPLES[-1][1] == "revert_hypertable"
        assert (code, "trades is a hypertable" in told) == ((255, True) if edition.has_hypertables else (0, False)), (
            told
        )
