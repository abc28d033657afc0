"""A table reads the same in the library, the client, the REST interface and `--schema-from`, from whatever program it comes."""

import csv
import datetime as dt
import decimal
import io
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from federation_rest_server import KEY, federation_server
from federation_runtime_in_memory import StatisticsRuntime

from pet import cli
from pet.errors import FederationRefusedError, FederationValueError, RowError
from pet.federation import Client, CsvTable, Feature, Kind, Schema, Statistics, univariate
from pet.federation.formats.tables import BLOCK_ROWS, opened, read_columns, with_names
from pet.federation.statistics.feature import MAX_NAME_LENGTH
from pet.federation.statistics.row_pieces import decode_piece, encode_piece, pieces

VECTORS = Path(__file__).parent.parent / "vectors" / "r_tables"
AGE, BMI, SMOKER = [30, np.nan, 41, 65, 58], [22.5, 31.25, np.nan, 19.875, 1e-3], [1, 0, np.nan, 1, 0]
WARD = ['A "north"', "B, south", None, 'A "north"', "C\nannex"]
FEATURES = (
    Feature(name="age", centre=50.0, scale=10.0),
    Feature(name="bmi", centre=25.0, scale=5.0),
    Feature(name="smoker", kind=Kind.BINARY),
)
SCHEMA = Schema(FEATURES, has_missing=True)
EXPECTED = Statistics.of(np.column_stack([AGE, BMI, SMOKER]), SCHEMA)


@pytest.fixture(scope="module")
def client():
    with federation_server(runtime=StatisticsRuntime()) as url, Client(url, "c1", KEY) as client:
        client.create("p", "f", nats_hosts="nats://127.0.0.1:1", fed_schema=SCHEMA.to_json())
        yield client


class Places:
    """The four places."""

    def __init__(self, client, folder):
        self.client, self.folder = client, folder

    def values(self, data, suffix=".csv", **form):
        """Return what each place read of a file: count and mean of each feature, or the number of rows."""
        path = self.folder / f"table{suffix}"
        path.write_bytes(data)
        table = CsvTable(path, **form) if suffix != ".parquet" else path
        found = {"library": Statistics.of(table, SCHEMA)}
        self.check_client(table)
        if suffix != ".parquet":
            self.check_rest(data, **form)
        self.check_schema_from(path, **form)
        return found["library"]

    def local(self):
        return {name: self.client.univariate("p", name, local=True) for name in SCHEMA.names}

    def check_client(self, table):
        before = self.client.row_counts("p")["learned"]
        assert before == 0
        assert self.client.learn("p", table) == 5
        self.require_expected()
        assert self.client.forget("p", table) == 5
        assert self.client.row_counts("p")["learned"] == 0

    def check_rest(self, data, encoding="utf-8", separator=None, decimal="."):
        query = {"decimal": decimal} | ({} if separator is None else {"separator": separator.replace("\t", "tab")})
        for path in ("learn", "forget"):
            answer = self.client._send(f"p/{path}", data, query, content_type=f"text/csv; charset={encoding}")
            assert answer == {"rows": 5, "done": True}
            if path == "learn":
                self.require_expected()

    def check_schema_from(self, path, encoding="utf-8", separator=None, decimal="."):
        from pet.commands.federation_create import propose_schema
        from pet.commands.federation_learn import table_of

        separators = {None: None, ",": "comma", ";": "semicolon", "\t": "tab"}
        table = table_of(path, encoding, separators[separator], decimal)
        found = Schema.from_json(propose_schema(table, ["age", "bmi", "smoker"]))
        assert found == Schema.propose(SCHEMA.names, np.column_stack([AGE, BMI, SMOKER]), has_missing=True)

    def require_expected(self):
        for name, found in self.local().items():
            expected = univariate(EXPECTED, name)
            assert (found["count"], found["mean"]) == (expected.count, pytest.approx(expected.mean, rel=1e-12))


@pytest.fixture
def places(client, tmp_path):
    return Places(client, tmp_path)


R_FILES = {
    "write_csv.csv": {},
    "write_csv_no_row_names.csv": {},
    "write_csv_crlf.csv": {},
    "write_csv_cr.csv": {},
    "write_csv_na_empty.csv": {},
    "write_csv_utf16.csv": {"encoding": "utf-16-le"},
    "write_csv2.csv": {"decimal": ","},
    "write_table_tab.txt": {},
}


@pytest.mark.parametrize(("name", "form"), R_FILES.items(), ids=R_FILES)
def test_files_of_r_read_the_same_everywhere(places, name, form):
    assert places.values((VECTORS / name).read_bytes(), **form) == EXPECTED


def test_every_file_of_r_is_tried():
    assert {path.name for path in VECTORS.iterdir()} == {*R_FILES, "make.R"}


def frame(**types):
    columns = {"age": AGE, "bmi": BMI, "smoker": SMOKER, "ward": WARD}
    table = pd.DataFrame(columns)
    return table.astype(types) if types else table


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize(
    "form", [{}, {"separator": ";", "decimal": ","}, {"separator": "\t", "encoding": "utf-16"}, {"encoding": "utf-8-sig"}]
)
def test_files_of_pandas_read_the_same_everywhere(places, end, index, form):
    types = {"smoker": "boolean", "age": "Int64"}
    data = io.BytesIO()
    options = {
        "sep": form.get("separator", ","),
        "decimal": form.get("decimal", "."),
        "encoding": form.get("encoding", "utf-8"),
    }
    table = frame(**types)
    if end == "\r":  # pandas, too, leaves another line break unquoted
        table["ward"] = table["ward"].str.replace("\n", " ")
    table.to_csv(data, index=index, lineterminator=end, **options)
    assert places.values(data.getvalue(), **form) == EXPECTED


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
def test_files_of_csv_read_the_same_everywhere(places, end, quoting):
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator=end, quoting=quoting)
    writer.writerow(["age", "bmi", "smoker", "ward"])
    # Where lines end otherwise, the module leaves this break unquoted.
    ward = WARD if quoting != csv.QUOTE_MINIMAL else [None if name is None else name.replace("\n", " ") for name in WARD]
    writer.writerows(zip(AGE, BMI, [True, False, None, True, False], ward, strict=True))
    assert places.values(text.getvalue().encode()) == EXPECTED


MASKED = {
    "age": np.ma.masked_invalid(AGE),
    "bmi": np.ma.array(np.nan_to_num(BMI, nan=25.0), mask=np.isnan(BMI)),
    "smoker": np.ma.array([1, 0, 99, 1, 0], mask=[0, 0, 1, 0, 0]),
}
TABLES = {
    "mapping": {"age": AGE, "bmi": BMI, "smoker": [True, False, None, True, False]},
    "masked": MASKED,
    "lists with masked ones": {"age": [30, np.ma.masked, 41, 65, 58], "bmi": BMI, "smoker": SMOKER},
    "texts": {
        "age": ["30", "NA", " 41", "65", "58"],
        "bmi": np.array(["22.5", "31.25", "", "19.875", "1e-3"]),
        "smoker": SMOKER,
    },
    "bytes": {"age": np.array([b"30", b"NA", b"41", b"65", b"58"]), "bmi": BMI, "smoker": SMOKER},
    "objects": {
        "age": np.array([30, None, decimal.Decimal(41), Fraction(65), np.int8(58)], dtype=object),
        "bmi": np.array(BMI, dtype=object),
        "smoker": np.array([True, np.bool_(False), pd.NA, "TRUE", "false"], dtype=object),
    },
    "structured": np.array(list(zip(AGE, BMI, SMOKER, strict=True)), dtype=[("age", "f4"), ("bmi", "f8"), ("smoker", "f2")]),
    "pandas": frame(),
    "pandas nullable": frame(age="Int64", bmi="Float64", smoker="boolean"),
    "pandas strings": frame().assign(age=pd.array(["30", None, "41", "65", "58"], dtype="string")),
    "pandas categories": frame().assign(smoker=pd.Categorical(["TRUE", "FALSE", None, "TRUE", "FALSE"])),
    "pandas sparse": frame().assign(bmi=pd.arrays.SparseArray(BMI)),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_in_memory_read_the_same_in_library_and_client(places, name):
    assert Statistics.of(TABLES[name], SCHEMA) == EXPECTED
    places.check_client(TABLES[name])


def test_arrays_need_names_where_the_order_is_not_the_schemas(client):
    matrix = np.column_stack([SMOKER, AGE, BMI])
    client.learn("p", matrix, names=["smoker", "age", "bmi"])
    assert client.univariate("p", "smoker", local=True)["mean"] == pytest.approx(0.5)
    client.forget("p", np.ma.masked_invalid(matrix), names=["smoker", "age", "bmi"])
    for names in (None, "age", ["age", "bmi"], ["age", "bmi", "age"]):
        with pytest.raises(FederationValueError, match=r"names: expected one|different names"):
            client.learn("p", matrix, names=names)
    with pytest.raises(FederationValueError, match="names: expected none for a table that has its own"):
        client.learn("p", {"age": AGE}, names=["age"])
    with pytest.raises(FederationValueError, match="one or two dimensions"):
        client.learn("p", np.zeros((2, 2, 2)), names=["age"])
    one = Schema((Feature(name="x"),))
    assert Statistics.of(np.arange(4.0), one) == Statistics.of(with_names(np.arange(4.0), "x"), one)


REFUSED = {
    "dates": (np.array(["2020-01-01"], dtype="datetime64[D]"), "dates"),
    "dates of pandas": (pd.Series(pd.to_datetime(["2020-01-01"])), "dates"),
    "dates with a zone": (pd.Series(pd.to_datetime(["2020-01-01"])).dt.tz_localize("UTC"), "date"),
    "dates of Python": ([dt.date(2020, 1, 1)], "a date"),
    "no date": (np.array([pd.NaT], dtype=object), "a date"),
    "durations": (np.array([3], dtype="timedelta64[s]"), "durations"),
    "durations of Python": ([dt.timedelta(1)], "a duration"),
    "complex numbers": ([1j], "complex numbers"),
    "complex numbers among others": (np.array([1j, None], dtype=object), "a complex number"),
    "records": (np.zeros(1, dtype=[("x", "f8")]), "records"),
    "digits of another script": (["\u0661"], "digits of another script"),
    "underscores": (["1_0"], "other text"),
    "an infinity": ([np.inf], "infinity"),
    "a huge number": ([10**400], "fits into a double"),
    "nested lists": ([[1.0]], "columns of one length"),
    "something else": ([object()], "something else"),
}


@pytest.mark.parametrize(("values", "problem"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_number_is_refused_by_name(client, values, problem):
    with pytest.raises(FederationValueError, match=problem):
        Statistics.of({"x": values}, Schema((Feature(name="x"),)))
    with pytest.raises(FederationValueError, match=problem):
        client.learn("p", {"age": values, "bmi": [25.0], "smoker": [1]})


def test_a_value_under_a_mask_is_not_looked_at():
    masked = np.ma.array(["1", "no number"], mask=[False, True])
    assert np.isnan(read_columns({"x": masked})[1][:, 0]).tolist() == [False, True]
    with pytest.raises(RowError, match="row 1, feature age: expected a value"):
        Statistics.of(np.ma.array([[1.0], [99.0]], mask=[[0], [1]]), Schema((Feature(name="age"),)))


def test_columns_that_are_there_twice_are_refused_by_name():
    table = pd.DataFrame([[1.0, 2.0, 3.0]], columns=["age", "bmi", "age"])
    for source in (table, CsvTable(b"age,bmi,age\n1,2,3\n"), {"age": [1.0], "age ": [2.0]}, {"1": [1.0], 1: [2.0]}):
        with pytest.raises(FederationValueError, match=r"different names, got '(age|1)'"):
            Statistics.of(source, SCHEMA)


def test_rest_takes_columns_with_the_same_words(client):
    body = b'{"columns":{"age":["30",null,"41",65,58],"bmi":[22.5,31.25,"NA",19.875,1e-3],"smoker":[true,false,".","TRUE",0]}}'
    for path in ("learn", "forget"):
        assert client._send(f"p/{path}", body)["rows"] == 5
    for bad in (b'{"columns":{"age":["old"]}}', b"age,bmi,smoker\n1,2\n", b"PETR"):
        for kind in ("application/json", "text/csv", "application/vnd.pet.rows", "text/csv; charset=utf-7", "a; b=c"):
            with pytest.raises(FederationRefusedError) as raised:
                client._send("p/learn", bad, content_type=kind)
            assert raised.value.status == 400
    assert client.row_counts("p") == {"learned": 0, "shared": 0, "tables": 0, "heldBack": None, "pending": []}


def test_large_tables_go_in_pieces_of_whole_blocks_and_keep_their_order():
    rng = np.random.default_rng(3)
    table = pd.DataFrame({"b": rng.normal(size=3 * BLOCK_ROWS + 7), "a": rng.normal(size=3 * BLOCK_ROWS + 7), "note": "x"})
    bodies = list(pieces(table, None, Schema((Feature(name="a"), Feature(name="b"))), BLOCK_ROWS * 16))
    read = [decode_piece(body) for body in bodies]
    assert [piece.names for piece in read] == [("a", "b")] * 4
    assert [bool(piece.others_digest()) for piece in read] == [False, False, False, True]
    values = np.concatenate([block.values for piece in read for block in piece.blocks(["b", "a"])])
    assert np.array_equal(values, table[["b", "a"]].to_numpy())
    assert read[0].others_digest() == b""


def test_pieces_fed_badly():
    piece = encode_piece(["a", "b"], [np.ones((3, 2))], bytes(32))
    assert read_columns(decode_piece(piece))[1].tolist() == [[1, 1]] * 3
    for end in range(len(piece)):
        if (len(piece) - end) % 16:  # whole rows less are a shorter piece
            with pytest.raises(FederationValueError, match="rows: expected"):
                decode_piece(piece[:end])
    for place in (0, 3, 4, 5, 7, 8, 11, 12):
        broken = bytearray(piece)
        broken[place] ^= 0x41
        with pytest.raises(FederationValueError, match="rows: expected"):
            decode_piece(bytes(broken))
    for heading in (b"[]", b"{}", b'{"names":[],"others":""}', b'{"names":[1],"others":""}', b'{"names":"ab","others":""}'):
        with pytest.raises(FederationValueError, match="rows: expected a heading"):
            decode_piece(piece[:8] + len(heading).to_bytes(4, "little") + heading)
    with pytest.raises(FederationValueError, match="rows: expected a heading"):
        decode_piece(encode_piece(["a"], [], b"\0" * 31))
    with pytest.raises(FederationValueError, match="different names"):
        decode_piece(encode_piece(["a", "a"], [np.ones((3, 2))]))


def test_blocks_do_not_depend_on_the_source():
    """Sums of the same rows are then the same to the last bit, and what was learned from one form is forgotten from another."""
    values = np.random.default_rng(1).normal(size=(2 * BLOCK_ROWS + 100, 2))
    text = "a,b\n" + "".join(f"{first!r},{second!r}\n" for first, second in values.tolist())
    sources = [
        CsvTable(text.encode()),
        CsvTable(text.replace("\n", "\r\n").encode("utf-16"), encoding="utf-16"),
        pd.DataFrame(values, columns=["a", "b"]),
    ]
    for source in sources:
        with opened(source) as table:
            found = [block.values for block in table.blocks(["a", "b"])]
        assert [len(block) for block in found] == [BLOCK_ROWS, BLOCK_ROWS, 100]
        assert np.array_equal(np.concatenate(found), values)


def test_create_proposes_from_chosen_columns(tmp_path, capsys, monkeypatch):
    path = tmp_path / "rows.csv"
    path.write_text("age,ward\n30,A\n" + "x" * MAX_NAME_LENGTH + ",B\n")
    arguments = ["federation", "create", "p", "-k", "no.key", "--name", "F", "--nats-hosts", "nats://127.0.0.1:1"]
    assert cli.run([*arguments, "--schema-from", str(path)]) == 1
    assert f"{path}: line 3, column 1, feature age: expected a number, got other text" in capsys.readouterr().err
    assert cli.run([*arguments, "--schema-from", str(path), "--features", "bmi"]) == 1
    assert "got none for 'bmi'" in capsys.readouterr().err
    assert cli.run([*arguments, "--schema-from", str(path), "--separator", "pipe"]) == 2
    assert "comma, semicolon or tab" in capsys.readouterr().err
