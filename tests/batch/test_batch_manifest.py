"""Reading tables: spreadsheets' habits, JSON lines, and everything that is no table."""

import io
import json
import os
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joyflash_cli.batch.csv_cells import MAX_LINE_CHARS, ManifestError
from joyflash_cli.batch.manifest import open_manifest, read_rows
from joyflash_cli.batch.rows import RawRow, Shard, parse_shard
from joyflash_cli.errors import UsageError

HEADER = "id,image,audio,output,prompt,seed\n"


def rows_of(text: str | bytes, name: str = "m.csv") -> list[RawRow]:
    data = text.encode() if isinstance(text, str) else text
    return list(read_rows(io.BytesIO(data), name))


def values_of(text: str | bytes, name: str = "m.csv") -> list[dict]:
    return [dict(row.values) for row in rows_of(text, name)]


def test_csv_rows_with_their_numbers_and_lines():
    found = rows_of(HEADER + "a,f.png,t.wav,a.mp4,,7\n\nb,f.png,u.wav,,,\n")
    assert found == [
        RawRow(1, 2, {"id": "a", "image": "f.png", "audio": "t.wav", "output": "a.mp4",
                      "prompt": "", "seed": "7"}),
        RawRow(2, 4, {"id": "b", "image": "f.png", "audio": "u.wav", "output": "",
                      "prompt": "", "seed": ""}),
    ]  # fmt: skip


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_what_spreadsheets_write(delimiter, line_end, mark):
    cells = [["id", "image", "audio"], ["ä", "f, 1.png", "t;2.wav"]]
    lines = [delimiter.join(f'"{cell}"' for cell in row) for row in cells]
    data = mark + (line_end.join(lines) + line_end).encode()
    assert values_of(data) == [{"id": "ä", "image": "f, 1.png", "audio": "t;2.wav"}]


def test_a_spreadsheets_own_line_about_the_delimiter():
    assert values_of("sep=;\r\nid;image;audio\r\na;f;t\r\n") == [
        {"id": "a", "image": "f", "audio": "t"}
    ]


def test_empty_columns_and_rows_at_the_end_are_dropped():
    assert values_of("ID, Image ,AUDIO,,\na,f,t,,\n,,,,\n  , \n   \n") == [
        {"id": "a", "image": "f", "audio": "t"}
    ]


def test_a_cell_may_hold_lines_quotes_and_emoji():
    prompt = 'says "hi"\nand, 👩‍🚀 waves'
    cell = '"' + prompt.replace('"', '""') + '"'
    found = rows_of(f"id,image,audio,prompt\na,f,t,{cell}\nb,f,t,x\n")
    assert found[0].values["prompt"] == prompt
    assert (found[1].number, found[1].line) == (2, 4)


def test_spaces_around_cells_and_quotes_do_not_count():
    text = ' id , "image" , audio,prompt \n a ,  "f, 1.png"  , t.wav ," two  " \n'
    assert values_of(text) == [
        {"id": "a", "image": "f, 1.png", "audio": "t.wav", "prompt": " two  "}
    ]
    assert values_of(text.replace(" , ", " ; ").replace(",", ";"))[0]["audio"] == "t.wav"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_unicode_text_of_spreadsheets(encoding, line_end):
    text = line_end.join(["id\timage\taudio", 'ä\t"f, 1.png"\tt.wav', ""])
    assert values_of(text.encode(encoding)) == [{"id": "ä", "image": "f, 1.png", "audio": "t.wav"}]


def test_columns_that_mean_nothing_are_left_out_with_a_note():
    notes = []
    csv = io.BytesIO(b"id,Speaker,image,audio,notes\na,x,f,t,y\nb,,f,t\n")
    found = list(read_rows(csv, "m.csv", note=notes.append))
    assert found[0].values == {"id": "a", "image": "f", "audio": "t"}
    assert "has 4 cells; the header has 5" in found[1].wrong
    assert notes == [
        "m.csv: 'speaker' is no column of a batch and is left out",
        "m.csv: 'notes' is no column of a batch and is left out",
    ]
    notes.clear()
    lines = io.BytesIO(b'{"id": "a", "speaker": [1]}\n{"id": "b", "speaker": 2}\n')
    found = list(read_rows(lines, "m.jsonl", note=notes.append))
    assert [row.values for row in found] == [{"id": "a"}, {"id": "b"}]
    assert notes == ["m.jsonl: 'speaker' is no column of a batch and is left out"]


def test_json_lines():
    lines = [{"id": "a", "image": "f", "audio": "t", "seed": 7}, {"id": "=1+1", "prompt": None}]
    text = "\n".join(map(json.dumps, lines)) + "\n\n"
    expected = [{"id": "a", "image": "f", "audio": "t", "seed": 7}, {"id": "=1+1"}]
    assert values_of(text, "m.jsonl") == expected
    assert values_of(text, "no-suffix") == expected
    assert [row.line for row in rows_of("\n" + text, "m.jsonl")] == [2, 3]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("[1]", "not a JSON object"),
        ('{"id": "a"', "not JSON"),
        ('{"id": "a", "id": "b"}', "a key stands twice"),
        ('{"id": "a", "promt": ""}', "did you mean prompt?"),
        ('{"id": "a", "Image": ""}', "did you mean image?"),
        ('{"id": 3}', "id is 3; a text is needed"),
        ('{"seed": true}', "seed is true; an integer is needed"),
        ('{"seed": 1.5}', "seed is 1.5; an integer is needed"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_a_wrong_json_line_is_a_problem_of_its_row(line, told):
    found = rows_of(f'{line}\n{{"id": "b"}}\n', "m.jsonl")
    assert told in found[0].wrong
    assert found[0][:3] == (1, 1, {})
    assert found[1] == RawRow(2, 2, {"id": "b"})


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"id,image\n", "lacks the column audio (delimiter ',')"),
        (b"id|image|audio\n", "lacks the columns id, image, audio"),
        (b"id;image\n", "lacks the column audio (delimiter ';')"),
        (b"face.png,talk.wav\n", "lacks the columns id, image, audio"),
        (b"id,image,audio,promt\n", "did you mean prompt?"),
        (b"id,image,audio,id\n", "has the column id twice"),
        (b"id,image,audio\n\xe4,f,t\n", "is not UTF-8 (byte 0xe4)"),
        ("id,image,audio\na,f,t\n".encode("utf-16")[:-1], "is not UTF-16"),
        (b'id,image,audio\na,"f,t\n', "line 2 is not CSV: the quote opened here is never closed"),
        (b'id,image,audio\na,f,t\nb,"f,t\nc,f,t\n', "line 3 is not CSV"),
        (b'id,image,audio\na,"f\n1",t\nb,"f\n2","t\nc,f,t\n', "line 5 is not CSV"),
        (b'id,image,audio\nb,"f,t\nc,"f",t\n', "line 2 is not CSV: the quote opened here ends in"),
        (b'id,image,audio\nb,"f"x,t\n', "line 2 is not CSV: the quote opened here ends inside of"),
        (b'id,image,"audio\na,f,t\n', "line 1 is not CSV"),
        (b"x" * (MAX_LINE_CHARS + 1), "is longer than"),
        (
            b"id,image,audio\na,f," + b"x" * 200_000 + b"\n",
            "line 2 is not CSV: a cell has more than",
        ),
        (b'id,image,audio\na,f,"' + b"x\n" * 200_000, "line 2 is not CSV"),
        (b"x" * 50_000, "lacks the columns"),
    ],
)
def test_what_is_no_table(data, told):
    with pytest.raises(ManifestError) as caught:
        rows_of(data)
    assert told in str(caught.value)
    assert caught.value.exit_code == 2
    assert len(str(caught.value)) < 1_000


@pytest.mark.parametrize(
    "line",
    [
        '{"id": ' + "[" * 900 + "]" * 900 + "}",
        '{"id": ' + "[" * 50_000,
        '{"seed": ' + "9" * 50_000 + "}",
        '{"id": "' + "x" * 50_000 + '", "image": 5}',
    ],
)
def test_a_hostile_row_is_one_short_problem(line):
    (row,) = rows_of(line)
    assert 0 < len(row.wrong) < 1_000
    assert row.wrong.isprintable()


def test_a_row_with_too_few_cells_is_a_problem():
    found = rows_of("id,image,audio\na,f\nb,f,t,extra\nc,f,t\n")
    assert found[:2] == [
        RawRow(1, 2, {}, "has 2 cells; the header has 3"),
        RawRow(2, 3, {}, "has 4 cells; the header has 3"),
    ]
    assert found[2].values["id"] == "c"


def test_a_missing_manifest_and_a_folder(tmp_path):
    with pytest.raises(ManifestError, match="no such file"):
        open_manifest(tmp_path / "m.csv")
    with pytest.raises(ManifestError, match="is a folder"):
        open_manifest(tmp_path)


def test_a_pipe_is_read_as_it_comes(tmp_path):
    reader, writer = os.pipe()
    os.write(writer, (HEADER + "a,f,t,,,\n").encode())
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        assert [row.values["id"] for row in read_rows(file, "pipe")] == ["a"]


def test_rows_come_one_at_a_time():
    """A reader that is asked for one row has read one buffer, not the file."""

    class Endless(io.RawIOBase):
        num_read = 0

        def readable(self):
            return True

        def readinto(self, buffer):
            text = HEADER.encode() if not self.num_read else b"a,f,t,,,\n" * 100
            buffer[: len(text)] = text
            self.num_read += 1
            return len(text)

    endless = Endless()
    rows = read_rows(io.BufferedReader(endless), "m.csv")
    tracemalloc.start()
    for _ in range(5_000):
        next(rows)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert endless.num_read < 5_000 / 100 + 200
    assert peak < 2_000_000
    rows.close()


@given(st.binary(max_size=400))
def test_any_bytes_give_rows_or_one_error(data):
    for name in ("m.csv", "m.jsonl"):
        for start in (b"", b"id,image,audio\n", b'{"id": "a"}\n'):
            try:
                found = rows_of(start + data, name)
            except ManifestError:
                continue
            assert all(isinstance(row, RawRow) for row in found)


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/0", "a/b", "-1/2", "1/2/3", "", "1.0/2"])
def test_a_wrong_shard(text):
    with pytest.raises(UsageError, match="is not i/n"):
        parse_shard(text)


@given(st.integers(1, 20), st.integers(1, 100))
def test_shards_part_the_rows(count, number):
    assert sum(Shard(index, count).has(number) for index in range(1, count + 1)) == 1
    assert parse_shard(f" {count}/{count} ") == Shard(count, count)
