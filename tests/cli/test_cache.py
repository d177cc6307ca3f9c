"""The cache of decoded pictures as a user meets it: shared by all stages, in $NETTAILOR_HOME/cache, and dispensable."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.helpers import ONE, Workshop, contents, make_pictures, ok, refuses

IMAGES = "36 images at 37 x 37"  # 32 px and what is cropped away, as the documents say: 256/224


def test_every_picture_is_decoded_once_for_all_stages(shop: Workshop) -> None:
    folder = shop.home / "cache"
    assert f"{IMAGES}: 0 from the cache {folder}, 36 decoded into it" in shop.results["teach"].err
    for stage in ("tailor", "finetune"):
        assert f"{IMAGES}: 36 from the cache {folder}\n" in shop.results[stage].err
    # test pictures were looked at in training already; and the folder may lie elsewhere, and be split in another way
    model = shop.run / "model.safetensors"
    assert f"12 images at 37 x 37: 12 from the cache {folder}\n" in ok("evaluate", model, "--data", shop.data).err
    assert "24 from the cache" in ok("evaluate", model, "--data", shop.flat, "--split", "all").err


@pytest.mark.parametrize("memory", ["4GB", "0"])
def test_the_same_bytes_come_out_without_it(shop: Workshop, tmp_path: Path, memory: str) -> None:
    result = ok("teach", *shop.start(tmp_path / "run"), *ONE, "--cache-limit", "0", "--memory-limit", memory)
    assert "not in the cache (--cache-limit 0): images are " in result.err
    file = "teacher.safetensors"
    assert (tmp_path / "run" / file).read_bytes() == (shop.run / file).read_bytes()


class TestAHomeOfOnesOwn:
    @pytest.fixture
    def home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        home = tmp_path / "my own home"
        monkeypatch.setenv("NETTAILOR_HOME", str(home))
        return home

    @pytest.fixture
    def evaluation(self, shop: Workshop) -> tuple[object, ...]:
        return ("evaluate", shop.run / "teacher.safetensors", "--data", shop.data, "--json")

    def test_may_be_deleted_and_limited(self, home: Path, evaluation: tuple[object, ...]) -> None:
        first = ok(*evaluation)
        assert f"0 from the cache {home / 'cache'}, 12 decoded into it" in first.err
        again = ok(*evaluation)
        assert "12 from the cache" in again.err
        without = ok(*evaluation, "--cache-limit", "0")
        assert "not in the cache" in without.err
        shutil.rmtree(home / "cache")
        small = ok(*evaluation, "--cache-limit", "10 kB")
        assert "not in the cache (they take" in small.err and contents(home) == {}
        deleted = ok(*evaluation)
        assert "12 decoded into it" in deleted.err
        assert first.document == again.document == without.document == small.document == deleted.document
        refuses(*evaluation, "--cache-limit", "lots", says=["--cache-limit", "lots"])

    def test_damage_is_repaired(self, home: Path, evaluation: tuple[object, ...]) -> None:
        first = ok(*evaluation)
        (file,) = (home / "cache").iterdir()
        whole = file.read_bytes()
        file.write_bytes(whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:])
        repaired = ok(*evaluation)
        assert f"warning: {file} is damaged" in repaired.err
        assert repaired.document == first.document and "warning" not in ok(*evaluation).err

    def test_that_can_not_be_written_is_done_without(self, home: Path, evaluation: tuple[object, ...]) -> None:
        home.write_text("a file in the way")
        result = ok(*evaluation)
        assert "not in the cache (can't write" in result.err and "kept in memory" in result.err
        home.unlink()
        assert ok(*evaluation).document == result.document

    def test_broken_pictures_are_reported_each_time(
        self, home: Path, evaluation: tuple[object, ...], tmp_path: Path
    ) -> None:
        data = tmp_path / "data"
        make_pictures(data / "test", 3, seed=2)
        broken = data / "test" / "red square" / "01.png"
        broken.write_bytes(b"no picture")
        args = (*evaluation[:3], data, "--json")
        for _ in range(2):
            refuses(*args, says=["1 of 9 images can't be read", "01.png: not a picture", "--skip-bad-images"])
        results = [ok(*args, "--skip-bad-images") for _ in range(2)]
        assert results[0].document == results[1].document and results[0].document["skipped"] == 1
        assert all("1 of 9 images can't be read and are left out" in result.err for result in results)


@pytest.mark.parametrize("command", ["teach", "tailor", "finetune", "evaluate"])
def test_help_says_where_it_is_and_how_to_do_without(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    text = " ".join(ok(command, "--help").out.replace("│", " ").split())
    assert "--cache-limit" in text and "$NETTAILOR_HOME/cache; 0 is no cache" in text and "20GB" in text
