"""Tables of Arrow and Parquet files read the same as all others."""

import datetime as dt
import io

import numpy as np
import pytest
from test_tables import BMI, EXPECTED, SCHEMA, Places, client, frame  # noqa: F401 - a fixture

from pet.errors import FederationValueError
from pet.federation import Feature, Schema, Statistics
from pet.federation.formats.tables import BLOCK_ROWS, opened

pa = pytest.importorskip("pyarrow", reason="without pyarrow (extra parquet)")

AGES, SMOKERS = [30, None, 41, 65, 58], [True, False, None, True, False]


@pytest.fixture
def places(client, tmp_path):  # noqa: F811 - the fixture
    return Places(client, tmp_path)


def table():
    return pa.table({"age": pa.array(AGES), "bmi": BMI, "smoker": SMOKERS})


def test_parquet_files_read_the_same_everywhere(places, tmp_path):
    import pyarrow.parquet as pq

    data = io.BytesIO()
    pq.write_table(table(), data)
    assert places.values(data.getvalue(), ".parquet") == EXPECTED
    (tmp_path / "cut.parquet").write_bytes(data.getvalue()[:-20])
    (tmp_path / "rows.csv.parquet").write_text("age\n1\n")
    for name in ("cut.parquet", "rows.csv.parquet"):
        with pytest.raises(FederationValueError, match=f"{name}: expected a Parquet file"):
            Statistics.of(tmp_path / name, SCHEMA)


TABLES = {
    "table": table,
    "batch": lambda: pa.RecordBatch.from_pydict(
        {"age": pa.array(AGES), "bmi": BMI, "smoker": pa.array(["1", "0", "NA", "1", "0"]).dictionary_encode()}
    ),
    "pandas": lambda: frame(age="int64[pyarrow]", bmi="double[pyarrow]", smoker="bool[pyarrow]"),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_arrow_read_the_same_in_library_and_client(places, name):
    assert Statistics.of(TABLES[name](), SCHEMA) == EXPECTED
    places.check_client(TABLES[name]())


def test_what_is_no_number_is_refused_by_name():
    with pytest.raises(FederationValueError, match="date"):
        Statistics.of(pa.table({"x": pa.array([dt.date(2020, 1, 1)])}), Schema((Feature(name="x"),)))
    with pytest.raises(FederationValueError, match=r"different names, got 'age'"):
        Statistics.of(pa.table([[1.0], [2.0]], names=["age", "age"]), SCHEMA)


def test_blocks_do_not_depend_on_batches():
    values = np.random.default_rng(1).normal(size=(2 * BLOCK_ROWS + 100, 2))
    batches = [pa.record_batch({"a": part[:, 0], "b": part[:, 1]}) for part in np.array_split(values, 17)]
    reader = pa.RecordBatchReader.from_batches(batches[0].schema, batches)
    for source in (pa.Table.from_batches(batches), reader):
        with opened(source) as found:
            blocks = [block.values for block in found.blocks(["a", "b"])]
        assert [len(block) for block in blocks] == [BLOCK_ROWS, BLOCK_ROWS, 100]
        assert np.array_equal(np.concatenate(blocks), values)
