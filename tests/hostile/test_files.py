"""Hostile files: each in a process with 2 s of CPU and 300 MB; no traceback, all located."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
H = "input 8 x 8 x 4\n"
F = "input H x W x 3\n"
MIB = 2**20


def symbols(count):
    return " x ".join(f"h{i}" for i in range(count))


TEXTS = {
    "a bomb of repeats": H + "repeat 1M { repeat 1M { repeat 1M { relu } } }",
    "a bomb of empty repeats": H + "repeat 1M { repeat 1M { } }",
    "a bomb of blocks": H
    + "block b0() { relu }\n"
    + "".join(f"block b{i}() {{ b{i - 1}; b{i - 1} }}\n" for i in range(1, 40))
    + "b39",
    "blocks that use each other": H + "block a(n) { b n }\nblock b(n) { a n + 1 }\na 1",
    "a block that uses itself twice": H + "block a() { a; a }\na",
    "forty doublings of a value": H
    + "let a0 = channels\n"
    + "".join(f"let a{i} = a{i - 1} * a{i - 1}\n" for i in range(1, 40)),
    "forty doublings of a size": F
    + "let a0 = H + W\n"
    + "".join(f"let a{i} = a{i - 1} * a{i - 1}\n" for i in range(1, 40)),
    "divisions in divisions": F
    + "let a0 = H\n"
    + "".join(f"let a{i} = (a{i - 1} * 3 + W) // 2\n" for i in range(1, 90)),
    "many requirements": F + "".join(f"require H % {i} != 1\n" for i in range(2, 600)),
    "many remainders": F + "require " + ", ".join(f"H % {p} + W % {p} < 5" for p in range(7, 60)),
    "a relation of many symbols": "input 8 x 8 x 1\n"
    + "".join(f"param p{i}\n" for i in range(400))
    + "require "
    + " + ".join(f"p{i}" for i in range(60))
    + " > 5\nrelu",
    "a thousand params": H + "".join(f"param p{i}\n" for i in range(1000)) + "relu",
    "a thousand conditions on params": H
    + "".join(f"param p{i}\nrequire p{i} % 7 == 0\n" for i in range(1000))
    + "relu",
    "products": F + "require H * W == 5760, H * W * H > 7\nrelu",
    "a large known product": F + "flatten -> 1_000_000_007\nfc 3",
    "what hung once": "input H x W x C\n"
    "require (H+W*7) // 7 % 7 > C%8, (H+W*11) // 11 % 11 > C%12, "
    "(H+W*13) // 13 % 13 > C%14, (H+W*17) // 17 % 17 > C%18\nrelu",
    "many scattered sizes": F + "require " + " or ".join(f"H == {i * i}" for i in range(2, 60)),
    "many holes": "input 512 x 512 x 3\n"
    "conv ? ? pad=? stride=? dilation=? groups=? -> 256 x 256 x 64",
    "a huge image": "input 9_999_999_999 x 9_999_999_999 x 9_999_999_999\nconv 999999999 3x3\n",
    "a long chain": H + "relu\n" * 9_000,
    "a long chain of free sizes": F + "conv 8 3x3 pad=1 stride=2\nupsample 2 nearest\n" * 1_000,
    "a chain of ever smaller sizes": F + "pool max 3 stride=2\n" * 200,
    "a tall of else": H + "if 1 == 2 { relu }" + " else if 1 == 2 { relu }" * 2_000,
    "a deep nest": H + "repeat 1 { " * 5_000 + "relu" + " }" * 5_000,
    "parentheses": H + "let a = " + "(" * 5_000 + "1" + ")" * 5_000,
    "a long sum": H + "let a = 1" + " + 1" * 9_000,
    "a long comparison": H + "require 1" + " < 2" * 5_000,
    "a long number": H + "fc " + "9" * 100_000,
    "many branches": H + "add " + "{ relu } " * 3_000,
    "many labels": H + "".join(f"skip as l{i}\n" for i in range(5_000)) + "concat l1 l2 l3",
    "misspelt words": H + "".join(f"cnov{i} 4 3x3\n" for i in range(3_000)),
    "misspelt names": H
    + "".join(f"let value{i} = {i + 1}\n" for i in range(400))
    + "".join(f"fc valeu{i}x\n" for i in range(400)),
    "misspelt labels": H
    + "".join(f"skip as label{i}\n" for i in range(2_000))
    + "".join(f"from lable{i}x\n" for i in range(1_000)),
    "misspelt options": H + "".join(f"conv 4 1x1 strid{i}=2\n" for i in range(1_500)),
    "mistakes on every line": H + "conv 4 4x4 pad=same\n" * 2_000,
    "many concats": H + "skip as a\n" + "concat a\n" * 3_000,
    "many expectations": H + "relu\nexpect params == 0\n" * 2_000,
    "a wide line": H + "relu; " * 9_000,
    "NUL": H + "relu\0",
    "writing the other way": H + "relu # \u202e",
    "half a character": H.encode() + b"relu # \xff\xfe",
    "a mebibyte of letters": "a" * MIB,
    "a mebibyte of brackets": "{" * MIB,
    "a mebibyte of quotes": '"' * MIB,
    "a mebibyte of newlines": "\n" * MIB,
    "a mebibyte of comments": "#" * MIB,
    "a mebibyte of digits": "1" * MIB,
    "a mebibyte of spaces": " " * MIB,
    "a mebibyte of wide signs": "×" * (MIB // 2),
    "more than a mebibyte": "relu\n" * MIB,
}


def limited(path):
    command = [sys.executable, "-m", "tests.hostile.limited", str(path)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.split()


@pytest.mark.parametrize("name", TEXTS)
def test_a_hostile_text_is_refused_or_checked_in_time(name, tmp_path):
    text = TEXTS[name]
    path = tmp_path / "hostile.cnn"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert limited(path)


def test_files_that_use_each_other(tmp_path):
    for i in range(12):
        (tmp_path / f"f{i}.cnn").write_text(f'use "f{(i + 1) % 12}.cnn"\nblock b{i}() {{ relu }}\n')
    assert "E216" in limited(tmp_path / "f0.cnn")
    (tmp_path / "self.cnn").write_text('use "self.cnn"\ninput 8 x 8 x 1\nrelu\n')
    assert limited(tmp_path / "self.cnn") == ["E216"]
    os.mkfifo(tmp_path / "pipe.cnn")
    (tmp_path / "link.cnn").symlink_to("/etc/passwd")
    for bad in ("pipe.cnn", "link.cnn", "/etc/passwd", "../../etc/passwd", "a\0b", "C:x.cnn"):
        (tmp_path / "main.cnn").write_text(f'use "{bad}"\ninput 8 x 8 x 1\nrelu\n')
        assert limited(tmp_path / "main.cnn")[0] in ("E116", "E216"), bad
    assert limited(tmp_path / "pipe.cnn") == ["E117"]
