"""Pictures: what is drawn where, and in which order."""

import numpy as np

from prompt_tuning.commands import similarity
from prompt_tuning.commands.inspect import pictures


def test_a_heat_map_puts_tasks_that_are_alike_side_by_side():
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(2, 16))
    names = ["a1", "b1", "a2", "b2", "a3"]
    prompts = [directions[i % 2] + 0.3 * rng.normal(size=(4, 16)) for i in range(len(names))]
    result = {
        "prompts": [{"name": name} for name in names],
        "of_means": similarity.similarity_of_means(prompts).tolist(),
        "of_pairs": similarity.similarity_of_pairs(prompts).tolist(),
    }
    figure = pictures.draw_similarity(result)
    maps = [axes for axes in figure.axes if axes.images]
    assert len(maps) == 2
    for axes, measure in zip(maps, ("of_means", "of_pairs"), strict=True):
        order = [label.get_text() for label in axes.get_xticklabels()]
        assert sorted(order) == sorted(names)
        assert "".join(name[0] for name in order) in ("aaabb", "bbaaa")
        at = [names.index(name) for name in order]
        drawn = np.asarray(axes.images[0].get_array())
        np.testing.assert_allclose(drawn, np.asarray(result[measure])[np.ix_(at, at)])
        assert [t.get_text() for t in axes.texts] == [f"{v:.2f}" for v in drawn.ravel()]


def _inspection(**more):
    row = {"neighbours": [{"distance": 0.4}], "random_nearest_distance": 0.6, "labels": []}
    return {
        "source": "/runs/a/numpy_checkpoints/checkpoint_3",
        "task": None,
        "step": None,
        "rows": [{**row, "row": 0}, {**row, "row": 1, "labels": ["up"]}],
        "random": {"draws": 2, "mean": {"nearest_distance": 0.6}, "sd": {"nearest_distance": 0.1}},
        "start": None,
        "course": [],
        **more,
    }


def test_a_prompt_without_a_run_has_one_panel_and_one_with_a_run_two():
    def drawn(axes):
        return {line.get_label(): line.get_xydata().tolist() for line in axes.lines}

    (axes,) = pictures.draw_inspections([_inspection()]).axes
    assert drawn(axes)["prompt"] == [[0, 0.4], [1, 0.4]]
    assert drawn(axes)["random vectors, mean of 2"] == [[0, 0.6], [1, 0.6]]
    assert drawn(axes)["prompt, a class label among the neighbours"] == [[1, 0.4]]
    assert axes.get_title() == "numpy_checkpoints/checkpoint_3"
    course = [{"step": s, "nearest_distance": s / 10, "turned": s / 5} for s in (0, 2)]
    with_run = _inspection(course=course, start={"norm": 1.0}, task="boolq", step=2)
    for row in with_run["rows"]:
        row["start"] = {"nearest_distance": 0.0}
    figure = pictures.draw_inspections([with_run, _inspection()])
    assert len(figure.axes) == 4
    assert figure.axes[0].get_title() == "boolq, step 2"
    assert drawn(figure.axes[0])["start"] == [[0, 0], [1, 0]]
    assert drawn(figure.axes[1])["to the nearest token"] == [[0, 0], [2, 0.2]]
    assert drawn(figure.axes[1])["to the start"] == [[0, 0], [2, 0.4]]
    assert not figure.axes[3].axison
