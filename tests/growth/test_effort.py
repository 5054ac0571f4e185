"""The bar over new matrices: it ends where it was said to, and moves with the work."""

import pytest
from rich.progress import Progress

from lesa_jax.growth.effort import decompose_effort, effort, learn_effort
from lesa_jax.growth.requests import Request, lesson_of
from lesa_jax.growth.run import grow
from lesa_jax.growth.settings import ExpandSettings
from lesa_jax.planning.methods import Formula, Lesa, PredictorSettings
from tests.support.growth import QUICK
from tests.support.tiny import tiny

SHAPE = (8, 512, 128)
QUICKLY = PredictorSettings(epochs=1)


def request(start=None, **options) -> Request:
    return Request(start or Lesa(), (1, 3), **({"predictor": QUICKLY} | options))


def test_what_is_shared_is_counted_once():
    one = effort(SHAPE, [request()])
    assert effort(SHAPE, [request(), request(Lesa(shrunk=False))]) == one
    learning = learn_effort(SHAPE, lesson_of(request()))
    assert effort(SHAPE, [request(), request(seed=1)]) == pytest.approx(one + learning)
    assert effort(SHAPE, [request(Formula(lambda w, gaps, key: w))]) < one / 1e6


def test_a_rank_saves_what_it_should():
    less = PredictorSettings(epochs=1, rank=51)
    assert decompose_effort(SHAPE, "svd", 51) < decompose_effort(SHAPE, "svd", None) / 2
    assert learn_effort(SHAPE, lesson_of(request(predictor=less))) == pytest.approx(
        learn_effort(SHAPE, lesson_of(request())) * 51 / 512
    )
    assert decompose_effort(SHAPE, "svd", 512) == decompose_effort(SHAPE, "svd", None)


@pytest.mark.parametrize("family", ["llama", pytest.param("mixtral", marks=pytest.mark.slow)])
def test_the_bar_arrives_by_itself(tmp_path, family, monkeypatch):
    """All work that was counted is done, and no more: packed experts page by page, several methods at once."""
    done, totals = [], []

    class Counting(Progress):
        def add_task(self, description, *rest, total=None, **more):
            if description == "new matrices":
                totals.append(total)
            return super().add_task(description, *rest, total=total, **more)

        def advance(self, task_id, advance=1):
            if self.tasks[task_id].description == "new matrices":
                done.append(advance)
            super().advance(task_id, advance)

    monkeypatch.setattr("lesa_jax.growth.run.progress_bars", lambda: Counting(disable=True))
    model = str(tiny(family))
    wanted = [
        ExpandSettings(model, tmp_path / name, method=method, gaps="1,3", **options)
        for name, method, options in (
            ("lesa", "lesa", QUICK),
            ("shuffled", "shuffled", QUICK),
            ("average", "average", {}),
        )
    ]
    grow(wanted)
    assert len(done) > 8
    assert sum(done) == pytest.approx(totals[0], rel=1e-3)
