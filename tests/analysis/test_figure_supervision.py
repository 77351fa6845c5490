"""Figure 1: a projection that is the states', signs that do not depend on the library, valid states only."""

from __future__ import annotations

import numpy as np
import pytest

from directcm.analysis.figures import figure_supervision
from directcm.errors import UserError
from directcm.runtime.artifacts import new_artifact, open_artifact, read_csv
from directcm.runtime.rng import generator
from tests.analysis import tidy_tables as tables
from tests.analysis.tidy_tables import alike, outputs, spy


def test_components_are_the_directions_of_most_variance():
    rng = generator(0, "rows")
    x = rng.normal(size=(200, 6)) * [1, 9, 2, 4, 1, 1]
    mean, directions, share = figure_supervision.components(x)
    values, vectors = np.linalg.eigh(np.cov(x.T))
    assert np.abs(directions @ vectors[:, [-1, -2]]) == pytest.approx(np.eye(2), abs=1e-9)
    assert share == pytest.approx(values[[-1, -2]] / values.sum())
    assert mean == pytest.approx(x.mean(0))
    assert all(row[np.argmax(np.abs(row))] > 0 for row in directions)
    assert figure_supervision.components(-x)[1] == pytest.approx(directions)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "N"), [(8, 50), (1, 4), (3, 10)])
def test_projection_of_valid_states(tmp_path, monkeypatch, count, N):
    artifact = tables.trajectories(tmp_path / "t", count, N)
    saved = spy(monkeypatch)
    for name in "ab":
        figure_supervision.draw(artifact, *outputs(tmp_path, name))
    assert alike(tmp_path, "a", "b")
    arrays = artifact.arrays("trajectories.safetensors")
    rows = read_csv(tmp_path / "a.csv")
    own = [r for r in rows if r["kind"] == "trajectory"]
    assert len(own) == sum(N + 1 - int(s) for s in arrays["start"])
    assert len(rows) - len(own) == 200
    flat = arrays["states"].reshape(count, N + 1, -1).astype(float)
    states = np.stack([flat[int(r["point"]), int(r["state"])] for r in own])
    mean, directions, _ = figure_supervision.components(arrays["background"].reshape(200, -1).astype(float))
    drawn = np.array([[float(r["pc1"]), float(r["pc2"])] for r in own])
    assert drawn == pytest.approx((states - mean) @ directions.T, rel=1e-6, abs=1e-6)
    assert {float(r["time"]) for r in own} <= {float(np.float32(t)) for t in np.linspace(1000, 0, N + 1)}
    # Both panels share their axes; Direct CM's arrows run from every start to that trajectory's end.
    left, right = saved[0].axes[:2]
    assert left.get_xlim() == right.get_xlim() and left.get_ylim() == right.get_ylim()
    from matplotlib.patches import FancyArrowPatch

    arrows = [p for p in right.patches if isinstance(p, FancyArrowPatch)]
    assert len(arrows) == count
    for i, arrow in enumerate(arrows):
        mine = [np.array([float(r["pc1"]), float(r["pc2"])]) for r in own if int(r["point"]) == i]
        assert np.array(arrow._posA_posB) == pytest.approx(np.array([mine[0], mine[-1]]), abs=1e-6)


def test_a_broken_artefact_is_an_error(tmp_path):
    from safetensors.numpy import save_file

    for name, tensors in (("a", {"states": np.zeros((1, 3, 1, 2, 2), np.float32)}),):
        with new_artifact(tmp_path / name, "trajectories", settings={}) as out:
            save_file(tensors, str(out / "trajectories.safetensors"))
        with pytest.raises(UserError, match="lacks start, times, background"):
            figure_supervision.draw(open_artifact(tmp_path / name, "trajectories"), *outputs(tmp_path, "f"))
