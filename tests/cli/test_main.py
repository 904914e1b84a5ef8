"""How the command line starts and ends: choosing a command, exit statuses, what is imported."""

import errno
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from cnndsl.cli import main as program
from cnndsl.cli import options, terminal
from cnndsl.cli.main import COMMANDS, main
from cnndsl.diagnostics.style import COLOURED, PLAIN

CLI = Path(program.__file__).parent


def command(monkeypatch, run) -> None:
    """Put a command `trial` in the table."""
    made = SimpleNamespace(configure=lambda parser: parser.add_argument("--count", type=int))
    made.run = run
    monkeypatch.setitem(COMMANDS, "trial", "for this test")
    monkeypatch.setitem(sys.modules, "cnndsl.cli.trial", made)


def raising(error: BaseException):
    def run(_arguments):
        raise error

    return run


def start(*arguments: str, **more) -> subprocess.Popen:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | more
    return subprocess.Popen([sys.executable, "-m", "cnndsl", *arguments], **pipes)


# ── choosing ─────────────────────────────────────────────────────────────────────────────────────


def test_the_table_names_every_command_module():
    sources = {file.stem: file.read_text(encoding="utf-8") for file in CLI.glob("*.py")}
    assert set(COMMANDS) == {n for n, text in sources.items() if "\ndef configure(" in text}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples(name, capsys):
    assert main([name, "--help"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith(f"usage: cnndsl {name} ")
    assert "\nexamples:\n" in out
    assert f"  cnndsl {name} " in out.split("examples:")[1]
    assert max(map(len, out.split("\n"))) <= 100


def test_help_lists_the_commands(capsys):
    assert main(["--help"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert [line.split()[0] for line in re.findall(r"^  (?!cnndsl).+$", out, re.M)] == [*COMMANDS]
    assert main(["-h"]) == 0


def test_no_command_is_wrong_usage_and_shows_the_help(capsys):
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert (out, err.split("\n")[0]) == ("", "cnndsl: a small language for convolutional networks")


def test_the_version(capsys):
    assert main(["--version"]) == 0
    assert re.fullmatch(r"cnndsl \d+\.\d+\.\d+\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["chekc"], "there is no command `chekc`\n  = help: did you mean `check`?"),
        (["xyzzy"], "there is no command `xyzzy`\n  = help: `cnndsl --help`"),
        (["../main"], "there is no command `../main`"),
        (["main"], "there is no command `main`"),
        (["--foo"], "`--foo` is no command"),
        (["trial", "--coutn=1"], "no option `--coutn`\n  = help: did you mean `--count`?"),
        (["trial", "--cou", "1"], "`cnndsl trial` has no option `--cou`"),
        (["trial", "--count", "x"], "`--count` takes a whole number, and `x` is none"),
        (["trial", "--count"], "`--count` needs a value"),
        (["trial", "more"], "`more` is one argument more than `cnndsl trial` takes"),
        (["trial", "--color", "nevr"], "auto, always or never, not `nevr`"),
        (["trial", "--color", "nevr"], "did you mean `never`?"),
        (["trial", "--traceback=1"], "`--traceback` takes no value"),
        (["explain", "--color"], "`--color` needs a value"),
    ],
)
def test_wrong_usage_says_what_to_do(monkeypatch, capsys, arguments, message):
    command(monkeypatch, lambda _: 0)
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert message in err
    assert "--help` " in err.split("\n")[-2]


def test_what_is_missing_is_named():
    words = options.plain_words("the following arguments are required: FILE, -o", "p", [])
    assert words == ("FILE and -o are missing", [])


def test_options_may_stand_before_the_command(monkeypatch):
    seen = []
    command(monkeypatch, lambda arguments: seen.append(arguments) or 1)
    assert main(["--color", "never", "--traceback", "trial", "--count", "3"]) == 1
    assert (seen[0].color, seen[0].traceback, seen[0].count) == ("never", True, 3)
    assert main(["--color=always", "trial"]) == 1
    assert seen[1].color == "always"


# ── ending ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", [0, 1, 2])
def test_the_status_is_the_commands(monkeypatch, status):
    command(monkeypatch, lambda _: status)
    assert main(["trial"]) == status


def test_ctrl_c_ends_quietly(monkeypatch, capsys):
    command(monkeypatch, raising(KeyboardInterrupt()))
    assert main(["trial"]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_bug_of_ours_is_one_clear_message_and_a_file(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    command(monkeypatch, raising(KeyError("x")))
    assert main(["trial"]) == 70
    (saved,) = tmp_path.iterdir()
    assert capsys.readouterr().err == (
        "error: cnndsl itself failed (KeyError): a bug in cnndsl, not in your file\n"
        f"  = help: please report it, with the file {saved}\n"
    )
    text = saved.read_text()
    assert text.startswith("cnndsl ")
    assert "KeyError: 'x'" in text


def test_a_bug_where_nothing_can_be_saved(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    command(monkeypatch, raising(RecursionError()))
    assert main(["trial"]) == 70
    assert "what `--traceback` prints" in capsys.readouterr().err


def test_a_traceback_when_it_is_asked_for(monkeypatch, capsys):
    command(monkeypatch, raising(KeyError("x")))
    assert main(["trial", "--traceback"]) == 70
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert err.endswith("please report it, with the lines above\n")


def test_what_the_system_refuses_is_no_bug(monkeypatch, capsys):
    command(monkeypatch, raising(OSError(errno.ENOSPC, "No space left on device", "out.py")))
    assert main(["trial"]) == 74
    assert capsys.readouterr().err == "error: the system refused: out.py: No space left on device\n"


def test_a_package_that_is_not_installed_is_named(monkeypatch, capsys):
    command(monkeypatch, raising(ModuleNotFoundError("no", name="PIL.Image")))
    assert main(["trial"]) == 74
    err = capsys.readouterr().err
    assert "needs the package `pillow`, which is not installed" in err
    assert "pip install 'cnndsl[train]'" in err


def test_a_module_of_ours_that_is_missing_is_a_bug(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    command(monkeypatch, raising(ModuleNotFoundError("no", name="cnndsl.nothing")))
    assert main(["trial"]) == 70


def test_a_reader_who_leaves_early_is_no_error():
    with start("--help") as process:
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(30) == 141


def test_a_full_disk_under_the_output_is_said():
    with Path("/dev/full").open("w") as full:
        process = start("--help", stdout=full)
        assert process.communicate(timeout=120)[1] == (
            "error: the system refused: No space left on device\n"
        )
    assert process.returncode == 74


def test_ctrl_c_from_outside(tmp_path):
    code = "import sys, time; from types import SimpleNamespace as N; from cnndsl.cli import main\n"
    code += "main.COMMANDS['t'] = ''\n"
    code += "run = lambda _: print('up', flush=True) or time.sleep(60)\n"
    code += "sys.modules['cnndsl.cli.t'] = N(configure=lambda p: None, run=run)\n"
    code += "sys.exit(main.main(['t']))"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=120) == ("", "")
    assert process.returncode == 130


def test_signs_that_the_terminal_lacks_do_no_harm():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    process = start("--help", env=environment)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert "\\u2026" in out


# ── the terminal ─────────────────────────────────────────────────────────────────────────────────


def test_colours_by_choice_terminal_and_environment(monkeypatch):
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    screen, pipe = SimpleNamespace(isatty=lambda: True), SimpleNamespace(isatty=lambda: False)
    assert terminal.style("auto", screen) is COLOURED
    assert terminal.style("auto", pipe) is PLAIN
    assert terminal.style("always", pipe) is COLOURED
    assert terminal.style("never", screen) is PLAIN
    monkeypatch.setenv("TERM", "dumb")
    assert terminal.style("auto", screen) is PLAIN
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert terminal.style("auto", screen) is PLAIN
    assert terminal.style("always", screen) is COLOURED
    monkeypatch.setenv("NO_COLOR", "")  # empty means unset: https://no-color.org
    assert terminal.style("auto", screen) is COLOURED


def test_the_width_is_the_terminals(monkeypatch, tmp_path):
    monkeypatch.delenv("COLUMNS", raising=False)
    with (tmp_path / "file").open("w") as file:
        assert terminal.width(file) == 100
        for told, width in (("72", 72), ("0", 100), ("x", 100), ("99999999", 100), ("500", 160)):
            monkeypatch.setenv("COLUMNS", told)
            assert terminal.width(file) == width
    monkeypatch.delenv("COLUMNS")
    main_end, end = pty.openpty()
    with os.fdopen(main_end), os.fdopen(end, "w") as screen:
        import fcntl
        import struct
        import termios

        fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 66, 0, 0))
        assert terminal.width(screen) == 66


# ── cost ─────────────────────────────────────────────────────────────────────────────────────────


def imported(*arguments: str) -> set[str]:
    code = f"import sys; from cnndsl.cli.main import main; main({list(arguments)})\n"
    code += "print('\\n' + ' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return set(done.stdout.split("\n")[-2].split())


HEAVY = {"torch", "triton", "numpy", "lark", "islpy", "dataclasses", "inspect"}


def test_help_and_wrong_usage_import_no_command():
    for arguments in (("--help",), ("chekc",), ("explain", "--nonsense")):
        loaded = imported(*arguments)
        commands = {f"cnndsl.cli.{name}" for name in COMMANDS} - {f"cnndsl.cli.{arguments[0]}"}
        assert not (HEAVY | commands) & loaded
    assert not {"cnndsl.check", "shutil", "tempfile", "traceback"} & imported("--help")


def test_explain_imports_no_heavy_package():
    loaded = imported("explain")
    assert "cnndsl.cli.explain" in loaded
    assert not (HEAVY | {"cnndsl.check"}) & loaded
