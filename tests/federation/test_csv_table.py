"""CSV files: every form that common programs write is read; everything else is refused with line and column."""

import contextlib
import csv
import io

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from in_turn import in_turn

from pet.errors import FederationValueError, PetError, RowError
from pet.federation.formats import csv_table
from pet.federation.formats.csv_reader import MAX_FIELD_CHARACTERS
from pet.federation.formats.csv_table import CsvTable
from pet.federation.formats.numbers import BOOLEAN_WORDS, MISSING_WORDS
from pet.federation.formats.tables import opened, read_columns

LINE_ENDS = ["\n", "\r\n", "\r"]


def column(text, name="x", **form):
    """Return the values of one column."""
    data = text if isinstance(text, bytes) else text.encode(form.get("encoding", "utf-8"))
    return read_columns(CsvTable(data, **form), [name])[1][:, 0].tolist()


def refused(text, **form):
    with pytest.raises(FederationValueError) as raised:
        column(text, **form)
    return raised.value


@in_turn("end", LINE_ENDS)
@in_turn("last", [True, False])
@in_turn("quote", ["", '"'])
@in_turn("separator", csv_table.SEPARATORS)
@in_turn("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252"])
def test_every_form_is_read(end, last, quote, separator, encoding):
    lines = [["größe", "x", "note"], ["1", "2.5", "ü"], ["3", "-4e2", f"a{quote and separator}b"]]
    fields = [separator.join(f"{quote}{field}{quote}" for field in line) for line in lines]
    text = end.join(fields) + (end if last else "")
    assert column(text, encoding=encoding) == [2.5, -400]
    assert column(text, encoding=encoding, separator=separator) == [2.5, -400]
    assert column(text, encoding=encoding, name="größe") == [1, 3]


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"])
def test_only_line_ends_end_lines(character):
    assert column(f"x,note\n30,a{character}b\n31,c\n") == [30, 31]
    assert refused(f"x,note\n30{character},a\n").line == 2


def test_quoted_fields_may_hold_anything():
    text = 'x,note\r\n1,"a ""word"", and\nmore\rthan\r\none line"\r\n2,b\r\n'
    assert column(text) == [1, 2]
    error = refused(text + "heavy,c\n")
    assert (error.row, error.line, error.column, error.feature) == (2, 7, 1, "x")


def test_blank_lines_are_no_rows_and_count_as_lines():
    assert column("\n\r\nx\n1\n\n2\n\n") == [1, 2]
    error = refused("\nx,y\n1,1\n\n\nold,1\n")
    assert (error.row, error.line) == (1, 6)


MALFORMED = {
    "an open quote": ('x,note\n30,ok\n31,"oops\n' + "32,fine\n" * 20, 3, 2, "closing quote"),
    "an open quote in the heading": ('x,"note\n1,2\n', 1, 2, "closing quote"),
    "text after a quote": ('x,note\n1,"a"b\n', 2, 2, "separator after the closing quote"),
    "too few fields": ("x,y,z\n1,2,3\n1,2\n", 3, 3, "expected 3 fields as in the heading, got 2"),
    "too many fields": ("x,y\n1,2\n1,2,3\n", 3, 3, "expected 2 fields as in the heading, got 3"),
    "a NUL": ("x,y\n1,2\n1,\x002\n", 3, 2, "NUL"),
    "a NUL in a note": ("x,note\n1,a\n2,b\x00\n", 3, 2, "NUL"),
    "other bytes": (b"x,note\n1,a\n2,\xff\n", 3, 2, "expected text in utf-8"),
    "half a character at the end": (b"x,note\n1,a\n2,\xc3", 3, 2, "expected text in utf-8"),
    "half a surrogate pair": (b"x,note\n1,\xed\xa0\x80\n", 2, 2, "expected text in utf-8"),
    "a huge field": ("x,note\n1,a\n2," + "b" * (MAX_FIELD_CHARACTERS + 1) + "\n", 3, 2, "characters, got a longer one"),
    "a huge quoted field": ('x,note\n1,a\n2,"' + "b" * (MAX_FIELD_CHARACTERS + 1) + '"\n', 3, 2, "got a longer one"),
    "text": ("x,y\n1,2\nold,2\n", 3, 1, "expected a number, got other text"),
    "a comma": ("x;y\n1,5;2\n", 2, 1, "got a comma"),
    "an underscore": ("x\n1_0\n", 2, 1, "got other text"),
    "digits of another script": ("x\n\u0661\n", 2, 1, "digits of another script"),
    "full-width digits": ("x\n\uff11\n", 2, 1, "digits of another script"),
    "a space inside": ("x\n1 000\n", 2, 1, "got other text"),
    "a space that does not break": ("x\n\xa01\n", 2, 1, "got other text"),
    "a control character": ("x\n\x1f1\n", 2, 1, "got other text"),
    "hexadecimal": ("x\n0x10\n", 2, 1, "got other text"),
    "a date": ("x\n2020-01-31\n", 2, 1, "got other text"),
    "an infinity": ("x\n-inf\n", 2, 1, "infinity"),
    "a complex number": ("x\n1+2j\n", 2, 1, "got other text"),
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize(("text", "line", "place", "problem"), MALFORMED.values(), ids=MALFORMED)
def test_what_is_malformed_is_refused_with_its_place(text, line, place, problem, encoding):
    encoding = "utf-8" if isinstance(text, bytes) else encoding
    error = refused(text, encoding=encoding)
    assert isinstance(error, RowError)
    assert (error.line, error.column) == (line, place)
    assert problem in str(error)
    # In a large file, the text before it in other pieces.
    if isinstance(text, str) and "heading" not in problem and line > 2:
        heading, rest = text.split("\n", 1)
        rows = 300_000 // 8
        filling = ",".join(["1"] * len(heading.split(","))) + "\n"
        error = refused(f"{heading}\n{filling * rows}{rest}", encoding=encoding)
        assert (error.line, error.column) == (line + rows, place)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "heading line, got an empty file"),
        ("\n\n", "heading line, got an empty file"),
        ("x,y,x\n1,2,3\n", r"line 1, column 3: expected columns with different names, got 'x' in column 1 too"),
        ("x, x\n1,2\n", "different names"),
        ("x;y,z\n1;2,3\n", "expected one separator in the heading, got ',' and ';'"),
        ("x,y\tz\n", "got ',' and a tab"),
        ("y\n1\n", "expected a column for every feature, got none for 'x'"),
    ],
)
def test_headings_that_are_none(text, problem):
    with pytest.raises(FederationValueError, match=problem):
        column(text)


def test_a_separator_inside_quotes_is_none():
    assert column('"x, in years";y\n1;2\n', name="x, in years") == [1]
    assert column("x,y;z\n1,2\n", separator=",") == [1]


def test_decimal_commas_are_read_where_they_are_stated():
    assert column("x;y\n1,5;2\n-,5e1;3\nNA;4\n2;5\n", decimal=",")[:2] == [1.5, -5]
    assert column("x\n1,5\n2,25\n", decimal=",") == [1.5, 2.25]
    assert refused("x;y\n1.5;2\n", decimal=",").problem == "expected a number with a decimal comma, got a point"
    assert "got other text" in str(refused("x;y\n1.234,5;2\n", decimal=","))
    with pytest.raises(FederationValueError, match="another separator than the decimal comma"):
        column("x,y\n1,2\n", decimal=",")


@pytest.mark.parametrize(
    "form",
    [
        {"encoding": "no such"},
        {"encoding": "punycode"},
        {"encoding": "zlib"},
        {"encoding": "utf-7"},
        {"encoding": "unicode_escape"},
        {"encoding": "\0"},
        {"separator": "|"},
        {"separator": ""},
        {"decimal": ";"},
        {"separator": ",", "decimal": ","},
    ],
)
def test_forms_that_are_none(form):
    with pytest.raises(FederationValueError, match=next(reversed(form))):
        CsvTable(b"x\n1\n", **form)


@pytest.mark.parametrize("word", sorted(MISSING_WORDS - {""}))
def test_missing_values(word):
    for text in (word, word.upper(), word.title(), f" {word}\t", f'"{word}"'):
        assert np.isnan(column(f"x,y\n{text},1\n2,1\n")).tolist() == [True, False]
    assert np.isnan(column(f'x\n""\n{word}\n')).all()


@pytest.mark.parametrize("word", BOOLEAN_WORDS)
def test_booleans(word):
    for text in (word, word.upper(), word.title(), f" {word}"):
        assert column(f"x\n{text}\n") == [BOOLEAN_WORDS[word]]


def test_long_lines_and_long_rows_are_refused_before_they_fill_the_memory(monkeypatch):
    class Endless(io.RawIOBase):
        def __init__(self, beginning, rest):
            self.rest, self.next, self.count = rest, beginning, 0

        def read(self, size=-1):
            part, self.next = self.next, self.rest
            self.count += len(part)
            return part

    for beginning, rest, problem in [
        (b"x\n", b"1" * 65536, "expected at most 4194304 bytes, got a longer line"),
        (b'x,note\n1,"a', b'\n","' * 10_000, "expected a row of at most 8388608 characters"),
    ]:
        source = Endless(beginning, rest)
        with pytest.raises(FederationValueError, match=problem):
            column_of(CsvTable(source))
        assert source.count < 16 << 20


def column_of(table):
    with opened(table) as opened_table:
        for _ in opened_table.blocks(["x"]):
            pass


@given(
    st.lists(
        st.lists(
            st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8),
            min_size=2,
            max_size=2,
        ),
        max_size=30,
    ),
    st.sampled_from(LINE_ENDS),
    st.sampled_from(csv_table.SEPARATORS),
    st.booleans(),
)
@example([["\n", '"']], "\r", ";", False)
def test_what_the_csv_module_writes_is_read(notes, end, separator, quotes_all):
    text = io.StringIO(newline="")
    # The module leaves a line break in a field unquoted where it is not the one that ends lines.
    has_breaks = any(set("\r\n") & set(note) for row in notes for note in row)
    quoting = csv.QUOTE_ALL if quotes_all or has_breaks else csv.QUOTE_MINIMAL
    writer = csv.writer(text, lineterminator=end, delimiter=separator, quoting=quoting)
    writer.writerow(["first", "x", "second"])
    writer.writerows([before, i / 8, after] for i, (before, after) in enumerate(notes))
    for source in (text.getvalue().encode(), io.BytesIO(text.getvalue().encode()), io.StringIO(text.getvalue(), newline="")):
        with opened(CsvTable(source)) as table:
            found = [value for block in table.blocks(["x"], 7) for value in block.values[:, 0]]
        assert found == [i / 8 for i in range(len(notes))]


@given(st.binary(max_size=200), st.sampled_from(["utf-8", "utf-16", "utf-32", "cp1252", "shift_jis", "gb18030"]))
def test_any_bytes_are_read_or_refused(data, encoding):
    with contextlib.suppress(PetError):  # and no other
        read_columns(CsvTable(data, encoding=encoding))


def test_files_of_others_stay_open(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("x\n1\n")
    with path.open("rb") as binary, path.open(newline="") as text:
        for file in (binary, text):
            assert read_columns(file)[1].tolist() == [[1]]
            file.seek(0)
            assert file.read(1) in (b"x", "x")
