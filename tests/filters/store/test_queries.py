"""SQL over the layers of a store: right answers, and nothing but answers."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from compressor.errors import InputError
from compressor.filters.store import Store, query


def test_groups_and_sums_are_those_of_the_layers(store: Store) -> None:
    found = store.query(
        "select task, count(*) as layers, sum(count) as kernels, max(peak) as peak from layers group by 1"
    )
    expected: dict[str, list[float]] = {}
    for layer in store.layers:
        row = expected.setdefault(layer.metadata["task"], [0, 0, 0.0])
        expected[layer.metadata["task"]] = [row[0] + 1, row[1] + layer.count, max(row[2], layer.peak)]
    assert {
        row["task"]: [row["layers"], row["kernels"], row["peak"]] for row in found.to_pylist()
    } == expected
    assert found.schema.field("kernels").type == pa.int64()


def test_other_tables_are_joined_by_key(store: Store) -> None:
    sketches = pa.table({"key": [0, 4, 8], "entropy": [0.1, 0.2, 0.3]})
    sql = 'select model, entropy, "Pretraining-Dataset" from layers join sketches using (key) order by key'
    rows = store.query(sql, tables={"sketches": sketches}).to_pylist()
    assert [(row["model"], row["entropy"]) for row in rows] == [("alpha", 0.1), ("beta", 0.2), ("gamma", 0.3)]
    condition = "key in (select key from sketches where entropy > 0.15)"
    assert [layer.key for layer in store.select(condition, tables={"sketches": sketches}).layers] == [4, 8]


def test_a_condition_selects_layers_in_their_order(store: Store) -> None:
    some = store.select("conv_depth_norm >= 0.5 and (model = 'beta' or model = 'alpha')")
    assert [(layer.model, layer.layer_id) for layer in some.layers] == [
        ("alpha", 2),
        ("alpha", 3),
        ("beta", 2),
        ("beta", 3),
    ]
    assert some.select("layer_id = 3").models == ("alpha", "beta")
    assert len(list(some.banks())) == 4
    with pytest.raises(InputError, match=r"of 12 layers none is such that task = 'segmentation'"):
        store.select("task = 'segmentation'")


def test_faults_in_sql_are_said_with_the_columns_there_are(store: Store) -> None:
    with pytest.raises(InputError, match="the query cannot be answered") as caught:
        store.query("select tasks from layers")
    assert '"tasks" not found' in str(caught.value)
    assert "The table layers has the columns key, model, layer_name, count" in str(caught.value)
    with pytest.raises(InputError, match="syntax error"):
        store.select("task = ")
    with pytest.raises(InputError, match="the query cannot be answered"):
        store.query("select * from unknown")


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "select 1; select 2",
        "create table t as select * from layers",
        "drop view layers",
        "set memory_limit = '100GB'",
        "copy layers to '{file}'",
        "attach '{file}'",
        "install httpfs",
    ],
)
def test_anything_but_one_select_is_refused(store: Store, tmp_path: Path, sql: str) -> None:
    file = tmp_path / "written"
    with pytest.raises(InputError, match=r"a query is one SELECT, got|the query cannot be answered"):
        store.query(sql.format(file=file))
    assert not file.exists()


def test_a_query_reads_no_files_and_no_variables(store: Store, folder: Path) -> None:
    secret = pa.table({"x": [1]})
    with pytest.raises(InputError, match=r"disabled (by|through) configuration"):
        store.query(f"select * from '{folder / 'layers' / '000000.parquet'}'")
    with pytest.raises(InputError, match="secret does not exist"):
        store.query("select * from secret")
    assert secret.num_rows == 1


def test_memory_is_limited_and_what_does_not_fit_goes_to_the_disk(tmp_path: Path) -> None:
    table = {"numbers": pa.table({"i": range(400_000)})}
    text = f"i::varchar || '{'x' * 200}'"
    sql = f"select count(*) as n from (select distinct i, {text} as s from numbers order by s)"
    with pytest.raises(InputError, match="Out of Memory"):
        query(table, sql, memory_limit="1MB", temp_directory=tmp_path)
    assert query(table, sql, memory_limit="200MB", temp_directory=tmp_path).to_pylist() == [{"n": 400_000}]
    with pytest.raises(InputError, match="memory_limit='plenty'"):
        query(table, sql, memory_limit="plenty")
