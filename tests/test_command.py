"""What the commands share: lines about what is wrong, and exit codes."""

import argparse
import subprocess
import sys
import warnings

import pytest

import jaxvid
from jaxvid.__main__ import main
from jaxvid.command import COMMANDS, Parser, attempt, names


def error_of(check, capsys) -> str:
    with pytest.raises(SystemExit) as stop:
        check()
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_what_a_line_lacks_is_one_sentence(capsys) -> None:
    parser = Parser("jaxvid.x", "About.", add_help=False)
    parser.add_argument("--num", type=int)
    error = error_of(lambda: parser.parse_args(["--num=many"]), capsys)
    assert error.startswith("jaxvid: argument --num: ") and error.count("\n") == 1
    options = argparse.Namespace(num=0, frames=None)
    assert "--num is 0, expected at least 1" in error_of(lambda: parser.check_least(options, frames=1, num=1), capsys)
    parser.check_least(options, frames=1, num=0)


def test_what_cannot_be_written_is_refused_before_the_work(tmp_path, capsys) -> None:
    parser = Parser("jaxvid.x", None)
    (tmp_path / "file").write_text("")
    for path, folder in ((".", False), ("file/x", False), ("absent/x", False), ("file", True), ("file/x", True)):
        error = error_of(lambda p=path, f=folder: parser.check_writable("output", str(tmp_path / p), f), capsys)
        assert error.startswith(f"jaxvid: --output {tmp_path / path} cannot be written: name a"), error
    for path, folder in (("new", False), ("file", False), (".", True), ("absent/x", True)):
        parser.check_writable("output", str(tmp_path / path), folder)


def test_names_are_what_stands_between_commas() -> None:
    assert names("a,b") == ["a", "b"] and names("") == [] and names("a,") == ["a"]


def test_every_end_has_its_code_and_its_line(capsys) -> None:
    def fail(error: BaseException) -> None:
        warnings.warn("odd", stacklevel=1)
        raise error

    before = warnings.showwarning
    for error, code, line in (
        (ValueError("it is wrong"), 2, "jaxvid: it is wrong\n"),
        (OSError("no space"), 2, "jaxvid: no space\n"),
        (KeyboardInterrupt(), 130, "Stopped; what was written before stays.\n"),
    ):
        assert attempt(lambda error=error: fail(error)) == code
        assert capsys.readouterr().err == f"warning: odd\n{line}"
    assert attempt(lambda: None) == 0 and warnings.showwarning is before
    assert attempt(lambda: fail(RuntimeError("RESOURCE_EXHAUSTED: 7 GiB\nat"))) == 2
    assert "memory does not suffice (RESOURCE_EXHAUSTED: 7 GiB): lower the batch size" in capsys.readouterr().err
    for error in (TypeError("a bug"), RuntimeError("a bug")):
        with pytest.raises(type(error)):
            attempt(lambda error=error: fail(error))


def test_help_breaks_between_words_and_not_within_names(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    parser = Parser("jaxvid.x", "About.")
    parser.add_argument("--x", help="some of a-name-with-hyphens, another-name-of-more-than-a-line, third")
    lines = [line.strip() for line in parser.format_help().splitlines()]
    assert "a-name-with-hyphens," in " ".join(lines) and "another-name-of-more-than-a-line," in lines


def test_a_command_is_called_by_its_name_and_answers_in_the_form_that_was_typed(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["a program of tests"])
    assert main("jaxvid", ["train", "--config", "vqvea"]) == 2
    assert capsys.readouterr().err.startswith("jaxvid: --config vqvea is no recipe")
    for program in ("jaxvid", "python -m jaxvid"):
        for name in COMMANDS:
            try:
                assert main(program, [name, "--help"]) == 0
            except SystemExit as stop:
                assert stop.code == 0
            out = capsys.readouterr().out
            assert out.startswith(f"usage: {program} {name} [")
            assert not any(f"python -m {module}" in out for module, _ in COMMANDS.values()), out


def test_a_command_that_is_not_there_is_answered_with_the_nearest(capsys) -> None:
    assert main("jaxvid", ["trian"]) == 2
    assert capsys.readouterr().err == 'jaxvid: there is no command "trian"; did you mean jaxvid train?\n'
    assert main("jaxvid", ["--version"]) == 0 and capsys.readouterr().out == f"jaxvid {jaxvid.__version__}\n"


@pytest.mark.parametrize(
    ("typed", "advice"), [("jaxvid train", "jaxvid data DIR"), ("/bin/jaxvid train", "python -m jaxvid.data DIR")]
)
def test_advice_names_a_command_in_the_form_that_was_typed(typed: str, advice: str, monkeypatch, capsys) -> None:
    def fail() -> None:
        raise ValueError("use `python -m jaxvid.data DIR`, not python -m jaxvid.data.folder, in jaxvid.data")

    monkeypatch.setattr(sys, "argv", [typed])
    assert attempt(fail) == 2
    expected = f"jaxvid: use `{advice}`, not python -m jaxvid.data.folder, in jaxvid.data\n"
    assert capsys.readouterr().err == expected


def test_the_commands_are_named_at_once() -> None:
    code = "import sys; from jaxvid.__main__ import main; main('jaxvid', []); print('jax' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line.split()[0] for line in out[2:-1]] == [*COMMANDS] and out[-1] == "False"
