import io
import os
import sys

import pytest

from cnndsl.diagnostics.model import Sink
from cnndsl.syntax.limits import MAX_BYTES
from cnndsl.syntax.read import FORMATS, read_source


def failed(path):
    sink = Sink()
    assert read_source(str(path), sink) is None
    (found,) = sink.sorted()
    assert found.fixes
    return found


def text_of(path):
    sink = Sink()
    source = read_source(str(path), sink)
    assert sink.sorted() == ()
    assert source is not None
    return source.text


def test_a_file_is_read_as_it_is(tmp_path):
    path = tmp_path / "a.cnn"
    path.write_bytes("relu # ×\r\n".encode())
    assert text_of(path) == "relu # ×\r\n"


def test_the_byte_order_mark_is_dropped(tmp_path):
    path = tmp_path / "a.cnn"
    path.write_bytes(b"\xef\xbb\xbfrelu\n")
    assert text_of(path) == "relu\n"


def test_the_largest_file_is_read_and_one_byte_more_is_not(tmp_path):
    path = tmp_path / "a.cnn"
    path.write_bytes(b" " * MAX_BYTES)
    assert len(text_of(path)) == MAX_BYTES
    path.write_bytes(b" " * (MAX_BYTES + 1))
    assert failed(path).code == "E510"


def test_a_link_to_a_file_is_read(tmp_path):
    (tmp_path / "a.cnn").write_text("relu")
    (tmp_path / "b.cnn").symlink_to(tmp_path / "a.cnn")
    assert text_of(tmp_path / "b.cnn") == "relu"


def test_bytes_that_are_not_utf8_are_shown_where_they_stand(tmp_path):
    path = tmp_path / "a.cnn"
    path.write_bytes("relu\n# ×× ".encode() + b"\xff\nrelu\n")
    found = failed(path)
    assert found.code == "E115"
    assert (found.span.line, found.span.column) == (2, 6)
    assert found.caption == "byte 0xff"


def test_a_missing_file(tmp_path):
    found = failed(tmp_path / "lenet")
    assert (found.code, found.span.source.name) == ("E117", str(tmp_path / "lenet"))
    assert "there is no file" in found.message
    (tmp_path / "lenet.cnn").write_text("relu")
    assert "lenet.cnn`?" in failed(tmp_path / "lenet").fixes[0].message


def test_a_folder_and_a_path_through_a_file(tmp_path):
    assert "folder" in failed(tmp_path).message
    (tmp_path / "a.cnn").write_text("relu")
    assert "is a file" in failed(tmp_path / "a.cnn" / "b.cnn").message


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "pipe" in failed(tmp_path / "pipe").message
    assert "device" in failed("/dev/zero").message


def test_names_that_no_file_can_have():
    assert failed("a\0b").code == "E117"
    assert failed("").code == "E117"
    assert failed("a" * 10_000).code == "E117"


def test_a_file_without_permission(monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    assert "may not read" in failed("a.cnn").message


def test_standard_input(tmp_path, monkeypatch):
    path = tmp_path / "a.cnn"
    path.write_text("relu\n")
    with path.open("rb") as file:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(file))
        source = read_source("-", Sink())
    assert source is not None
    assert (source.name, source.text) == ("<standard input>", "relu\n")


@pytest.mark.parametrize("suffix", sorted(FORMATS))
def test_a_file_of_another_program_is_named(tmp_path, suffix):
    path = tmp_path / f"net{suffix.upper() if suffix == '.onnx' else suffix}"
    path.write_bytes(b"\x08\x07\xff")
    sink = Sink()
    assert read_source(str(path), sink) is None
    (found,) = sink.sorted()
    assert found.code == "E117"
    assert FORMATS[suffix][0] in found.message
    assert found.fixes[0].message == FORMATS[suffix][1]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x89HDF\r\n", "HDF5"),
        (b"PK\x03\x04\xff", "zip"),
        (b"\x1f\x8b\xff", "unpack"),
        (b"\xff", "UTF-8"),
    ],
)
def test_what_is_not_text_says_what_it_is(tmp_path, content, said):
    path = tmp_path / "net"
    path.write_bytes(content)
    sink = Sink()
    assert read_source(str(path), sink) is None
    assert said in sink.sorted()[0].fixes[0].message
