"""python -m jaxvid.data reports what a folder contains, in words that a person can act on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from counting import numbers, write_video

from jaxvid.data.__main__ import main
from jaxvid.data.records import Records


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """Three sound videos in two classes, one damaged in the middle, one too short, one empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("cats", "dogs"):
        (tmp_path / "videos" / name).mkdir(parents=True)
    for name in ("cats/a.mp4", "cats/b.mp4", "dogs/new\nline 🎬.mp4"):
        write_video(tmp_path / "videos" / name, 40)
    damaged = Path(write_video(tmp_path / "videos" / "dogs" / "damaged.mp4", 120, noise=60, g="12"))
    data = damaged.read_bytes()
    damaged.write_bytes(data[: len(data) // 2] + bytes(5000) + data[len(data) // 2 + 5000 :])
    write_video(tmp_path / "videos" / "short.mp4", 5)
    (tmp_path / "videos" / "empty.mp4").write_bytes(b"")
    (tmp_path / "videos" / "notes.txt").write_text("")
    return tmp_path / "videos"


def test_the_report_names_everything(root, capsys):
    assert main([str(root), "--frames", "8", "--resolution", "24"]) == 0
    report = capsys.readouterr().out
    assert "5 readable videos in 3 folders, and 1 other file ignored (1 .txt)" in report
    assert "every frame was decoded" in report and "64x48" in report and "h264" in report
    assert "8 frames x 24 pixels at stride 1" in report
    rows = {line.split()[0]: line.split()[1:] for line in report.splitlines() if line.startswith("  ")}
    assert int(rows["cats"][0]) + int(rows["cats"][1]) == 10
    assert int(rows["all"][0]) + int(rows["all"][1]) == 10 + sum(map(int, rows["dogs"]))
    assert "damaged or odd: 1 file" in report and "of 120 frames decode, then" in report
    usable = int(rows["dogs/damaged.mp4"][0])
    assert 40 < usable < 70 and sum(map(int, rows["dogs"])) == 5 + usable // 8
    assert "skipped: 2 files" in report and "the file is empty (0 bytes)" in report
    assert "it has 5 of the 8 frames that a clip of 8 at stride 1 needs" in report
    assert len(set(line.index("it has") for line in report.splitlines() if "it has" in line)) == 1


def test_folders_are_counted_that_hold_videos(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("cats", "dogs", "empty"):
        (tmp_path / "videos" / name).mkdir(parents=True)
    for name in ("cats/a.mp4", "cats/b.mp4", "dogs/c.mp4"):
        write_video(tmp_path / "videos" / name, 20)
    (tmp_path / "videos" / "captions.csv").write_text("file,text\ncats/a.mp4,x\nd.mp4,y\n")
    assert main([str(tmp_path / "videos"), "--frames", "8", "--quick"]) == 0
    printed = capsys.readouterr()
    assert "3 readable videos in 2 folders" in printed.out
    assert printed.err.count("\n") == 2 and "without a caption: 2 of 3" in printed.err and "not there: 1" in printed.err


def test_quick_decodes_nothing(root, capsys):
    assert main([str(root), "--frames", "8", "--quick"]) == 0
    report = capsys.readouterr().out
    assert "packets only (--quick)" in report and "frames decode" not in report


def test_awkward_names_are_shown_on_one_line(root, capsys):
    assert main([str(root), "--frames", "41", "--quick"]) == 0  # only the long one remains
    report = capsys.readouterr().out
    assert r"  dogs/new\nline 🎬.mp4  it has 40 of the 41 frames" in report


def test_nothing_usable_is_one_sentence_and_2(root, tmp_path, capsys):
    for path, frames, message in (
        (root, "500", "none of 6 files in"),
        (root / "nowhere", "8", "there is no folder"),
        (tmp_path / "cache", "8", "no video in"),
        (root, "0", "frames must be a whole number of at least 1, not 0"),
    ):
        assert main([str(path), "--frames", frames, "--quick"]) == 2
        output = capsys.readouterr()
        assert output.out == "" and output.err.startswith(f"jaxvid: {message}") and output.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--frames", "many"],
        ["--wrong"],
        ["--shards", "0"],
        ["--workers", "0"],
        ["--convert", __file__],
        ["--convert="],
    ],
)
def test_bad_arguments_are_one_sentence_and_2(root, arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main([str(root), *arguments] if arguments else [])
    output = capsys.readouterr()
    assert caught.value.code == 2 and output.out == "" and output.err.count("\n") == 1


def test_convert_writes_what_the_folder_gives(root, tmp_path, capsys):
    out = tmp_path / "records"
    arguments = [str(root), "--frames", "8", "--resolution", "24", "--quick", "--convert", str(out), "--shards", "2"]
    assert main(arguments) == 0
    assert f"to {out}/train" in capsys.readouterr().out
    clips = [clip for split in ("train", "eval") for clip in map(Records(str(out), 8, 24, split).__getitem__, range(5))]
    for clip in clips:
        first = numbers(clip["video"])[0]
        assert numbers(clip["video"]) == list(range(first, first + 8)) and str(clip["text"]) in ("cats", "dogs")
    assert main(arguments) == 2  # it is not overwritten, which is said before the videos are read
    output = capsys.readouterr()
    assert output.out == "" and f"{out}/train exists and is not empty" in output.err


def test_a_pipe_that_closes_and_a_terminal_without_unicode_are_no_errors(root):
    command = f'"{sys.executable}" -m jaxvid.data "{root}" --frames 41 --quick'
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "PYTHONIOENCODING": "ascii"}
    result = subprocess.run(command, shell=True, capture_output=True, text=True, env=environment)
    assert result.returncode == 0 and result.stderr == "" and r"new\nline" in result.stdout
    result = subprocess.run(f"{command} | true", shell=True, capture_output=True, text=True, env=environment)
    assert result.stderr == ""
