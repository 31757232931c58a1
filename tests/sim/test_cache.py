"""The build cache: whole entries only, whoever builds, however often, whatever breaks."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.cache import build_folder, cached, hash_of, sources_hash


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("VMXLAB_BUILD", str(tmp_path))
    return tmp_path


def writer(text, calls=None):
    def build(entry):
        if calls is not None:
            calls.append(text)
        (entry / "product").write_text(text)

    return build


def test_an_entry_is_built_once(folder):
    calls = []
    first = cached("things", "key", writer("one", calls))
    assert cached("things", "key", writer("two", calls)) == first
    assert (first / "product").read_text() == "one"
    assert calls == ["one"]
    assert first.is_relative_to(folder)


def test_a_build_that_fails_leaves_nothing_behind(folder):
    def build(entry):
        (entry / "product").write_text("half")
        raise RuntimeError("out of paper")

    with pytest.raises(RuntimeError, match="out of paper"):
        cached("things", "key", build)
    assert [path.name for path in (folder / "things").iterdir()] == [".key.lock"]
    assert (cached("things", "key", writer("whole")) / "product").read_text() == "whole"


@pytest.mark.parametrize(
    "damage",
    [
        lambda entry: (entry / "product").write_text(""),
        lambda entry: (entry / "product").write_text("ONE"),
        lambda entry: (entry / "product").unlink(),
        lambda entry: (entry / "manifest.json").unlink(),
        lambda entry: (entry / "manifest.json").write_text('{"product'),
        lambda entry: (entry / "stray").write_text("left by a crash"),
    ],
    ids=["truncated", "changed", "missing", "no-manifest", "half-manifest", "stray-file"],
)
def test_what_is_not_whole_is_built_again(folder, damage):
    entry = cached("things", "key", writer("one"))
    damage(entry)
    again = cached("things", "key", writer("two"))
    assert (again / "product").read_text() == "two"
    assert sorted(path.name for path in again.iterdir()) == ["manifest.json", "product"]


def test_a_folder_that_was_never_finished_is_not_used(folder):
    unfinished = folder / "things" / "key"
    unfinished.mkdir(parents=True)
    (unfinished / "product").write_text("half")
    assert (cached("things", "key", writer("whole")) / "product").read_text() == "whole"


def _build_slowly(folder, notes, number):
    os.environ["VMXLAB_BUILD"] = str(folder)

    def build(entry):
        with (folder / "built").open("a") as log:
            log.write(f"{number}\n")
        time.sleep(0.3)
        (entry / "product").write_text("done")

    notes.put((cached("things", "key", build) / "product").read_text())


def test_processes_that_want_the_same_entry_build_it_once(folder):
    context = multiprocessing.get_context("spawn")
    notes = context.Queue()
    processes = [
        context.Process(target=_build_slowly, args=(folder, notes, number)) for number in range(3)
    ]
    for process in processes:
        process.start()
    assert [notes.get(timeout=60) for _ in processes] == ["done"] * 3
    for process in processes:
        process.join()
    assert len((folder / "built").read_text().splitlines()) == 1


def _build_for_ever(folder):
    os.environ["VMXLAB_BUILD"] = str(folder)

    def build(entry):
        (entry / "product").write_text("half")
        (folder / "started").touch()
        time.sleep(600)

    cached("things", "key", build)


def test_a_builder_that_was_killed_locks_nobody_out(folder):
    process = multiprocessing.get_context("spawn").Process(target=_build_for_ever, args=(folder,))
    process.start()
    deadline = time.monotonic() + 60
    while not (folder / "started").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert (cached("things", "key", writer("whole")) / "product").read_text() == "whole"


@given(st.lists(st.binary(max_size=4), max_size=4), st.lists(st.binary(max_size=4), max_size=4))
def test_keys_differ_when_any_part_does(one, other):
    assert (hash_of(*one) == hash_of(*other)) == (one == other)


def test_sources_are_told_apart_by_name_and_contents(tmp_path):
    def key(**files):
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        return sources_hash([tmp_path / name for name in files])

    keys = {key(a="1", b="2"), key(a="2", b="1"), key(a="12", b=""), key(a="1", c="2")}
    assert len(keys) == 4
    assert key(a="1", b="2") == key(b="2", a="1")


def test_products_of_a_checkout_stay_in_it(monkeypatch):
    monkeypatch.delenv("VMXLAB_BUILD", raising=False)
    assert build_folder() == Path(__file__).resolve().parents[2] / "build"
