"""Which folders the points of a sweep have."""

import hashlib
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from gpicl_flax.config import parse
from gpicl_flax.errors import UsageError
from gpicl_flax.records import json_lines
from gpicl_flax.records.run_folder import DONE, RunFolder, write_atomically
from gpicl_flax.runs.execute import RunSpec, execute
from gpicl_flax.runtime.preemption import StopRequest
from gpicl_flax.sweep import folders, grid, listing, runner, table
from gpicl_flax.sweep.stage_runner import StageRunner

DATA = Path(__file__).parent / "data"


@pytest.fixture
def points(small_bindings):
    grids = "[{'tokens': {'shifted': {}}, 'Run.seed': [0, 1]}]"
    return grid.points(parse([], [*small_bindings, f"sweep.grids = {grids}"]))


def names(points, workdir):
    return [folder.path.name for folder in folders.find(points, workdir)]


def test_a_folder_that_is_not_there_will_have_the_run_id(points, tmp_path):
    for workdir in (tmp_path, tmp_path / "none"):
        assert names(points, workdir) == [point.run_id for point in points]


def test_a_folder_is_found_by_its_digest_whatever_comes_before_it(points, tmp_path):
    (tmp_path / f"Transformer_depth=4_seed=0_{points[0].digest}").mkdir()
    (tmp_path / points[1].digest).mkdir()
    (tmp_path / f".seed=1_{points[1].digest}").mkdir()
    (tmp_path / f"seed=0_{points[1].digest}_before").mkdir()
    assert names(points, tmp_path) == [f"Transformer_depth=4_seed=0_{points[0].digest}", points[1].digest]
    RunFolder(tmp_path / names(points, tmp_path)[0]).mark(DONE)
    found = table.read_all(points, tmp_path)
    assert [each.state for each in found] == ["done", "waiting"]
    assert [each.run_id for each in found] == names(points, tmp_path)  # those that a listing of the folder shows


def test_of_several_folders_that_of_the_run_id_is_taken_and_without_it_none(points, tmp_path):
    first = points[0]
    for prefix in ("a", "b"):
        (tmp_path / f"{prefix}_{first.digest}").mkdir()
    with pytest.raises(UsageError, match=f"2 folders of one point, a_{first.digest} and b_{first.digest}: move"):
        folders.find(points, tmp_path)
    (tmp_path / first.run_id).mkdir()
    assert names(points, tmp_path)[0] == first.run_id


def test_one_listing_is_for_all_points(points, tmp_path, monkeypatch):
    listings, listed = [], folders.listed

    def count(workdir):
        listings.append(workdir)
        return listed(workdir)

    monkeypatch.setattr(folders, "listed", count)
    (tmp_path / points[0].run_id).mkdir()
    folders.find(points, tmp_path)
    table.read_all(points, tmp_path)
    assert listings == [tmp_path] * 2
    folders.find(points, tmp_path, names=[])
    assert len(listings) == 2


def test_a_sweep_skips_what_is_done_in_a_folder_of_another_name(points, tmp_path):
    for point in points:
        RunFolder(tmp_path / f"before_{point.digest}").mark(DONE)
    said = []
    with StopRequest() as stop:
        runner.run_all(lambda: points, tmp_path, stop, say=said.append)
    assert said == [f"[{n + 1}/2] {p.run_id} (in before_{p.digest}): DONE" for n, p in enumerate(points)]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_run_goes_on_where_only_what_cannot_change_results_changed(points, tmp_path):
    """Its digest is the same, so its folder is; what the folder holds must then be no other run."""
    point = points[0]
    write_atomically(RunFolder(tmp_path / point.run_id).config, point.config.text)
    grids = [{"tokens": {"shifted": {}}, "runs.run.Run.seed": [0]}]
    changed = {grid.GRIDS: grids, "Training.keep_checkpoints": 1, "MeshShape.data": 2}
    (other,) = grid.points(point.config.without(grid.LABELS, "Run.seed").override(changed))
    assert names([other], tmp_path) == [point.run_id]
    StageRunner([other], listing.resolve_points([other]), tmp_path, None, None, None, print, print).check([0])


class TestVersion01:
    """Folders of version 0.1, whose ids name every axis, lost their beginning at 200 bytes and end in other digests."""

    @pytest.fixture
    def kept(self, tmp_path):
        """The folder of a sweep of version 0.1, killed in its second point after the checkpoint at step 500.

        It has no leases, whose times would be in the future of a slow clock.
        """
        with tarfile.open(DATA / "version_0_1.tar.gz") as file:
            file.extractall(tmp_path, filter="data")
        points = grid.points(parse([str(tmp_path / "sweep.gin")]))
        return tmp_path / "half", points, tmp_path / "whole"

    def test_they_are_found(self, kept):
        workdir, points, _ = kept
        assert {path.name for path in workdir.iterdir()} == set(names(points, workdir)[:2])
        assert names(points, workdir)[2:] == [point.run_id for point in points[2:]]
        found = table.read_all(points, workdir)
        assert [(each.state, each.step) for each in found[:2]] == [("done", 1000), ("waiting", 500)]
        assert [each.state for each in found[2:]] == ["waiting", "waiting"]

    def test_one_of_the_present_version_comes_first(self, kept):
        workdir, points, _ = kept
        (workdir / f"x_{points[0].digest}").mkdir()
        assert names(points, workdir)[0] == f"x_{points[0].digest}"

    def test_one_that_was_renamed_is_found_if_it_holds_the_point(self, kept):
        workdir, points, _ = kept
        (first, second) = names(points, workdir)[:2]
        for name in (first, second):
            (workdir / name).rename(workdir / f"renamed_{name.rpartition('_')[2]}")
        assert names(points[:2], workdir) == [f"renamed_{name.rpartition('_')[2]}" for name in (first, second)]
        # A short digest that another run has by chance
        moved = workdir / f"renamed_{first.rpartition('_')[2]}"
        write_atomically(RunFolder(moved).config, points[3].config.text)
        assert names(points[:1], workdir) == [points[0].run_id]

    def test_their_bindings_may_name_modules(self, small_bindings, tmp_path):
        grids = "sweep.grids = [{'training.optimizers.adam.b1': [0.5]}]"
        (point,) = points = grid.points(parse(["gin/base.gin"], [*small_bindings, grids]))
        text = (
            point.config.without("adam.b1")
            .override({"z": 0})
            .text.replace("z = 0", "training.optimizers.adam.b1 = 0.5")
        )
        run_id = f"b1=0.5_{hashlib.sha256(text.encode()).hexdigest()[:8]}"
        write_atomically(RunFolder(tmp_path / run_id).config, text)
        assert names(points, tmp_path) == [run_id]
        StageRunner(points, listing.resolve_points(points), tmp_path, None, None, None, print, print).check([0])

    @pytest.mark.slow
    def test_a_sweep_takes_a_finished_run_as_done_and_goes_on_with_an_unfinished_one(self, kept, tmp_path):
        workdir, points, whole = kept
        points, before, said = points[:2], {path.name for path in workdir.iterdir()}, []
        (done, half) = (workdir / name for name in names(points, workdir))
        finished = (done / "metrics.jsonl").read_bytes()
        rows = (half / "metrics.jsonl").read_bytes().splitlines(keepends=True)
        shutil.copytree(half, tmp_path / "alone")
        with StopRequest() as stop:
            execute([RunSpec.from_config(points[1].config, RunFolder(tmp_path / "alone"))], stop)
            runner.run_all(lambda: points, workdir, stop, say=said.append)
        assert said[0].endswith(": DONE") and not said[1].endswith(": DONE") and len(said) == 2
        assert {path.name for path in workdir.iterdir()} == before
        assert (done / "metrics.jsonl").read_bytes() == finished
        assert (half / "DONE").exists()
        for name in ("metrics.jsonl", "eval/step_00001000.json", "config.gin"):
            assert (half / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
        # The rows up to the checkpoint stay, and those after it are what version 0.1 made without a break, up to the
        # rounding of the machine that this test runs on.
        new = (half / "metrics.jsonl").read_bytes().splitlines(keepends=True)
        assert new[:10] == rows[:10] and len(new) == 20
        undisturbed = json_lines.read(whole / half.name / "metrics.jsonl")
        for row, expected in zip(json_lines.read(half / "metrics.jsonl"), undisturbed, strict=True):
            assert row["step"] == expected["step"]
            np.testing.assert_allclose(row["loss"], expected["loss"], rtol=1e-4)
