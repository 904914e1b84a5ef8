"""`cnndsl.compile` and the public names: errors, the cache of emitted files, one import a text."""

import hashlib
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import cnndsl
from cnndsl.emit.module import emit
from cnndsl.layers.activations import Relu, Softmax
from cnndsl.layers.reshape import Flatten
from cnndsl.runtime import cache
from cnndsl.runtime.load import write
from tests.emit.networks import SOURCE, conv, fc, lenet, network, pool

ROOT = Path(__file__).parent.parent.parent
TEXT = "model Tiny\ninput H x 6 x 1\nconv 2 3x3; relu\npool max 2\nglobalpool avg\nflatten\nfc 3\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A cache of our own."""
    monkeypatch.setattr(cache, "user_cache_path", lambda name: tmp_path / "cache" / name)
    cache._temporary.cache_clear()
    monkeypatch.setattr(cache.tempfile, "tempdir", str(tmp_path))
    return tmp_path / "cache" / "cnndsl" / "modules"


def test_a_file_becomes_a_module(tmp_path):
    path = tmp_path / "tiny.cnn"
    path.write_text(TEXT)
    model = cnndsl.compile(path)
    assert isinstance(model, torch.nn.Module)
    assert type(model).__name__ == "Tiny"
    assert model.input_shape == (1, None, 6)
    assert model(torch.zeros(2, 1, 7, 6)).shape == (2, 3)


def test_settings_give_free_sizes_a_value():
    assert cnndsl.compile(source=TEXT, H=8).input_shape == (1, 8, 6)


def test_the_same_text_is_imported_once():
    one, two = cnndsl.compile(source=TEXT), cnndsl.compile(source=TEXT)
    assert type(one) is type(two)
    assert not torch.equal(one.fc1.weight, two.fc1.weight)


def test_the_text_of_a_model_can_be_read():
    model = cnndsl.compile(source=TEXT)
    text = inspect.getsource(sys.modules[type(model).__module__])
    assert text == write(None, TEXT, {}).text


def test_a_model_with_errors_raises_all_of_them():
    with pytest.raises(cnndsl.CheckError) as caught:
        cnndsl.compile(source="model X\ninput 8 x 8 x 1\nconv 4 9x9\nfoo\n")
    assert [d.code for d in caught.value.diagnostics] == ["E301", "E201"]
    text = str(caught.value)
    assert "error[E301]: the filter is 9 pixels high" in text
    assert "error[E201]: there is no layer called `foo`" in text
    assert "2 errors" in text


def test_a_file_that_is_not_there():
    with pytest.raises(cnndsl.CheckError, match=r"nothing\.cnn"):
        cnndsl.compile("nothing.cnn")


@pytest.mark.parametrize("function", [cnndsl.compile, cnndsl.check])
def test_a_file_or_a_text_and_not_both(function):
    with pytest.raises(TypeError, match="takes the path of a"):
        function()
    with pytest.raises(TypeError, match="takes the path of a"):
        function("a.cnn", source="")


def test_check_is_a_function_and_a_package():
    report = cnndsl.check(source=TEXT)
    assert report.ok
    assert report.symbols == ("H",)
    assert not cnndsl.check("nothing.cnn").ok
    assert cnndsl.check.__name__ == "cnndsl.check"


def test_the_public_names():
    assert {"check", "compile", "CheckError"} <= set(dir(cnndsl))
    with pytest.raises(AttributeError, match="no attribute 'tain'"):
        cnndsl.tain  # noqa: B018 (the attribute is the test)


def test_importing_cnndsl_and_checking_needs_no_torch():
    code = (
        "import sys, cnndsl; cnndsl.check(source='input 8 x 8 x 1\\nrelu\\n'); cnndsl.CheckError;"
        "print([m for m in ('torch', 'triton', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# ── the cache ────────────────────────────────────────────────────────────────────────────────────


def test_files_lie_in_a_folder_of_ours_under_their_content(folder):
    path = cache.path_of("x = 1\n", "Net")
    assert path.parent == folder
    assert path.read_text() == "x = 1\n"
    assert hashlib.sha256(b"x = 1\n").hexdigest()[:24] in path.name
    assert folder.stat().st_mode & 0o777 == 0o700
    assert cache.path_of("x = 1\n", "Net") == path
    assert [p.name for p in folder.iterdir()] == [path.name]


@pytest.mark.parametrize("damage", ["", "x = 2\n", "x = 1\n# more\n"])
def test_a_changed_file_is_written_anew(folder, damage):
    path = cache.path_of("x = 1\n", "Net")
    path.write_text(damage)
    assert cache.path_of("x = 1\n", "Net").read_text() == "x = 1\n"


def test_a_link_in_its_place_is_replaced(folder, tmp_path):
    path = cache.path_of("x = 1\n", "Net")
    path.unlink()
    other = tmp_path / "other.py"
    other.write_text("x = 1\n")
    path.symlink_to(other)
    assert not cache.path_of("x = 1\n", "Net").is_symlink()
    assert other.read_text() == "x = 1\n"


def test_a_folder_that_others_may_enter_is_closed(folder):
    cache.path_of("x = 1\n", "Net")
    folder.chmod(0o777)
    cache.path_of("x = 2\n", "Net")
    assert folder.stat().st_mode & 0o777 == 0o700


def test_without_a_cache_a_temporary_folder_does(folder, tmp_path, monkeypatch):
    def refuse(name):
        raise PermissionError(13, "no", name)

    monkeypatch.setattr(cache, "user_cache_path", refuse)
    path = cache.path_of("x = 1\n", "Net")
    assert path.read_text() == "x = 1\n"
    assert path.parent.parent == tmp_path
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_folder_of_somebody_else_is_not_used(folder, tmp_path, monkeypatch):
    cache.path_of("x = 1\n", "Net")
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    monkeypatch.setattr(cache, "_temporary", lambda: tmp_path)
    assert cache.path_of("x = 1\n", "Net").parent == tmp_path


# ── the emitted file alone ───────────────────────────────────────────────────────────────────────

ALONE = """
import sys

for name in ("cnndsl", "lark", "islpy", "platformdirs", "sklearn", "scipy", "rich", "safetensors"):
    sys.modules[name] = None  # as if it were not installed

import torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
from tiny import INTERPRETED, Net
if INTERPRETED:
    from triton.runtime import interpreter
    options = interpreter.InterpreterOptions(sanitize_overflow=False)
    interpreter.interpreter_builder.options = options
torch.manual_seed(0)
model = Net()
x, y = torch.randn(5, 1, 6, 7), torch.tensor([0, 1, 2, 1, 0])
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.8)
for step in range(20):
    optimizer.zero_grad()
    loss = model.loss(x, y)
    loss.backward()
    optimizer.step()
    print(loss.item())
"""


def test_alone_it_trains_the_same_with_kernels_as_without(tmp_path):
    graph = network(
        (6, 7, 1),
        conv(3, 3, pad=1),
        Relu(),
        pool("max", 2),
        conv(2, 2),
        Relu(),
        Flatten(),
        fc(4),
        Relu(),
        fc(3),
        Softmax(),
    )
    text = emit(graph, SOURCE, standalone=True).text
    (tmp_path / "tiny.py").write_text(text, encoding="utf-8")
    losses = []
    for value in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", ALONE, str(tmp_path)],
            env={**os.environ, "TRITON_INTERPRET": value},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        losses.append([float(line) for line in done.stdout.split()])
    plain, kernels = losses
    assert len(plain) == 20
    assert plain[-1] < plain[0] - 0.05
    assert plain == pytest.approx(kernels, abs=1e-4)


def test_lenet_is_what_the_command_says(tmp_path):
    (tmp_path / "lenet.py").write_text(emit(lenet(), SOURCE).text, encoding="utf-8")
    code = "import lenet; print(sum(p.numel() for p in lenet.LeNet().parameters()))"
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.stdout == "61706\n", done.stderr
