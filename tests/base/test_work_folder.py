"""A folder recognises its own work, and neither takes another's place nor mixes two."""

import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.base.work_folder import Work

WORK = Work("dig", "dig.json", "no dig", frozenset({"dig.lock"}))


def test_new_work_is_kept_and_recognised(tmp_path):
    folder = tmp_path / "new"
    assert WORK.earlier(folder) is None
    folder.mkdir()
    assert WORK.earlier(folder) is None
    (folder / "dig.lock").touch()
    assert WORK.earlier(folder) is None
    WORK.keep(folder, {"depth": 3})
    assert WORK.earlier(folder) == {"depth": 3}


def test_work_that_another_process_is_just_beginning_is_no_other_work(tmp_path):
    (tmp_path / ".dig.json.partial").touch()
    assert WORK.earlier(tmp_path) is None


def test_a_folder_that_another_process_is_just_beginning_is_no_stranger(tmp_path, monkeypatch):
    """The file is on its way to the disk while the other process looks."""
    found = []

    def slow_sync(path):
        if path.name.startswith("."):
            found.append([path.name for path in tmp_path.iterdir()])
            found.append(work.earlier(tmp_path))

    work = Work("dig", "dig.json", "no dig")
    monkeypatch.setattr("lesa_jax.base.files.sync", slow_sync)
    work.keep(tmp_path, {"depth": 3})
    assert found == [[".dig.json.partial"], None]
    assert work.earlier(tmp_path) == {"depth": 3}


def test_what_is_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    for output in (tmp_path, tmp_path / "thesis.tex"):
        with pytest.raises(InputError, match=f"--output {output}: exists and is no dig; choose another folder"):
            WORK.earlier(output)


@pytest.mark.parametrize(
    ("now", "message"),
    [
        ({"depth": 4, "with_rope": True}, "its dig has --depth 3, now it is 4; go on with the settings it began with"),
        ({"depth": 3}, "its dig has --with-rope True, now it is None"),
        ({"depth": 3, "with_rope": True, "lamps": 2}, "its dig has --lamps None, now it is 2"),
    ],
)
def test_other_settings_are_named(tmp_path, now, message):
    earlier = {"depth": 3, "with_rope": True}
    WORK.check_same(tmp_path, earlier, dict(earlier))
    with pytest.raises(InputError, match=message) as caught:
        WORK.check_same(tmp_path, earlier, now)
    assert "\n" not in str(caught.value)
