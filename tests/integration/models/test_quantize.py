"""Is int8 what it promises: the same graph, smaller, close to fp32, and exact where it can be?"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file, save_file

from orchestrator.models import prepare, quantize_graph, quantize_write
from orchestrator.models import quantize as quantising
from orchestrator.models.settings import read_settings
from orchestrator.models.verify import load, padded, random_ids


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    products: np.ndarray = (left * right).sum(axis=-1)
    return products / (np.linalg.norm(left, axis=-1) * np.linalg.norm(right, axis=-1))


@pytest.fixture(params=["bert-mean-normalised", "bert-gelu-new", "bert-relu", "distilbert-mean"])
def case(request: pytest.FixtureRequest, tiny: ModuleType, tmp_path: Path) -> tuple[Path, list[np.ndarray]]:
    """The fp32 graph of a tiny model, and ids of twelve texts."""
    directory = tiny.write(tmp_path / "tiny", tiny.CASES[request.param])
    graph = Path(prepare(str(directory), cache=tmp_path / "cache").artefact.path)
    return graph, random_ids(read_settings(directory, None).encoder, [40, 12, 30, 3, 24, 17] * 2)


def worst(exact: Path, coarse: Path, ids: list[np.ndarray]) -> float:
    """The smallest cosine between the two graphs' rows."""
    one, other = load(exact), load(coarse)
    return min(float(cosines(one(*padded([text], 0)), other(*padded([text], 0))).min()) for text in ids)


def feeds(ids: list[np.ndarray]) -> list[dict[str, np.ndarray]]:
    return [dict(zip(("input_ids", "attention_mask"), padded([one], 0), strict=True)) for one in ids]


def test_calibrated_int8_stays_close_to_fp32_on_texts_it_was_not_calibrated_on(
    case: tuple[Path, list[np.ndarray]], tmp_path: Path
) -> None:
    path, ids = case
    graph = quantize_graph.Graph(path)
    quantize_write.write(
        graph, quantising.calibrated(graph, quantize_graph.activations(graph, feeds(ids[:8])), 8), tmp_path
    )
    onnx.checker.check_model(str(tmp_path / "model.onnx"))
    assert worst(path, tmp_path / "model.onnx", ids[8:]) > 0.999


def test_where_a_few_channels_are_large_calibration_takes_most_of_the_error_away(
    tiny: ModuleType, tmp_path: Path
) -> None:
    """As in trained transformers: some channels of every norm's output are thirty times the others."""
    directory = tiny.write(tmp_path / "tiny", tiny.CASES["bert-mean-normalised"])
    tensors = load_file(directory / "model.safetensors")
    for name in [name for name in tensors if name.endswith("LayerNorm.weight")]:
        tensors[name] = tensors[name] * np.where(np.arange(32) % 11 == 3, 30, 1).astype(np.float32)
    for name in [
        name for name in tensors if name.endswith(("query.weight", "key.weight", "value.weight", "up.weight"))
    ]:
        tensors[name] = tensors[name] / np.where(np.arange(32) % 11 == 3, 30, 1).astype(np.float32)
    save_file(tensors, directory / "model.safetensors")
    path = Path(prepare(str(directory), cache=tmp_path / "cache").artefact.path)
    ids = random_ids(read_settings(directory, None).encoder, [40, 12, 30, 3, 24, 17] * 4)
    graph = quantize_graph.Graph(path)
    seen = quantize_graph.activations(graph, feeds(ids[:16]))
    found = {}
    for name, treatments in {
        "plain": quantising.plain(graph, 8),
        "calibrated": quantising.calibrated(graph, seen, 8),
    }.items():
        (tmp_path / name).mkdir()
        quantize_write.write(graph, treatments, tmp_path / name)
        found[name] = 1 - worst(path, tmp_path / name / "model.onnx", ids[16:])
    assert found["calibrated"] < 0.5 * found["plain"], found


def test_every_product_with_weights_becomes_int8_and_nothing_of_it_is_left_in_fp32(
    case: tuple[Path, list[np.ndarray]], tmp_path: Path
) -> None:
    path, ids = case
    graph = quantize_graph.Graph(path)
    quantize_write.write(
        graph, quantising.calibrated(graph, quantize_graph.activations(graph, feeds(ids)), 8), tmp_path
    )
    model = onnx.load(str(tmp_path / "model.onnx"))
    # Six in each of two layers, three of them in the attention.
    assert sum(node.op_type == "DynamicQuantizeMatMul" for node in model.graph.node) == 6
    assert [inner.op_type for node in model.graph.node for inner in attentions(node)] == ["QAttention"] * 4
    assert not [node for node in model.graph.node if node.op_type == "MultiHeadAttention"]
    weights = {product.weight for site in graph.sites() for product in site.products}
    assert not weights & {tensor.name for tensor in model.graph.initializer}
    assert not {"BiasGelu"} & {node.op_type for node in model.graph.node}


def attentions(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """What an If has in its two branches; nothing for any other node."""
    return [inner for attribute in node.attribute if attribute.HasField("g") for inner in attribute.g.node]


def test_attention_in_int8_sees_no_padding(case: tuple[Path, list[np.ndarray]], tmp_path: Path) -> None:
    """The padding is made of the last token, so that the scale of the activations is nearly the same with and without it."""
    path, ids = case
    graph = quantize_graph.Graph(path)
    quantize_write.write(
        graph, quantising.calibrated(graph, quantize_graph.activations(graph, feeds(ids)), 8), tmp_path
    )
    run = load(tmp_path / "model.onnx")
    (exact,) = run(*padded([ids[0]], 0))
    row = np.concatenate([ids[0], np.repeat(ids[0][-1:], 7)])[None].astype(np.int32)
    mask = np.concatenate([np.ones_like(ids[0]), np.zeros(7, ids[0].dtype)])[None].astype(np.int32)
    (other,) = run(row, mask)
    count = len(ids[0]) if exact.ndim == 2 else 1
    assert cosines(exact.reshape(count, -1), other.reshape(-1, exact.shape[-1])[:count]).min() > 0.999
    (unmasked,) = run(row, np.ones_like(mask))
    assert not np.allclose(other.reshape(-1, exact.shape[-1])[:count], unmasked.reshape(-1, exact.shape[-1])[:count])


def test_a_site_that_is_not_treated_stays_as_it_was(case: tuple[Path, list[np.ndarray]], tmp_path: Path) -> None:
    path, ids = case
    graph = quantize_graph.Graph(path)
    quantize_write.write(graph, {}, tmp_path)
    for one in ids[:3]:
        np.testing.assert_array_equal(load(tmp_path / "model.onnx")(*padded([one], 0)), load(path)(*padded([one], 0)))


def test_an_fp32_value_projection_takes_the_scale_of_the_int8_product_behind_it(
    case: tuple[Path, list[np.ndarray]], tmp_path: Path
) -> None:
    """Only the products that read attention are int8; with 'weights' that are exact in int8 the answers would be the same."""
    path, ids = case
    graph = quantize_graph.Graph(path)
    seen = quantize_graph.activations(graph, feeds(ids))
    behind_attention = {site.value for site in graph.sites() if site.source is not None}
    assert len(behind_attention) == 2
    some = {value: one for value, one in quantising.calibrated(graph, seen, 8).items() if value in behind_attention}
    assert any(treatment.scale is not None for treatment in some.values())
    quantize_write.write(graph, some, tmp_path)
    for one in ids[:3]:
        coarse, exact = load(tmp_path / "model.onnx")(*padded([one], 0)), load(path)(*padded([one], 0))
        assert cosines(coarse, exact).min() > 0.9995


def test_compensated_rounding_errs_less_on_the_activations_it_is_meant_for() -> None:
    random = np.random.default_rng(3)
    mixing = random.normal(size=(48, 48)).astype(np.float32)
    values = (random.normal(size=(400, 48)).astype(np.float32)) @ mixing
    weights = random.normal(size=(48, 20)).astype(np.float32)
    nearest, steps = quantising.quantise_weight(weights)
    chosen = quantising.compensated(weights, steps, values.T @ values)

    def error(kept: np.ndarray) -> float:
        return float(np.square(values @ (kept * steps - weights)).sum())

    assert error(chosen) < 0.7 * error(nearest)


def test_weights_keep_seven_bits_where_products_would_saturate() -> None:
    weights = np.random.default_rng(1).normal(size=(64, 8)).astype(np.float32)
    assert quantising.weight_bits(["avx2", "fma"]) == 7
    assert {quantising.weight_bits([feature]) for feature in ("avx512_vnni", "avx_vnni", "asimddp")} == {8}
    for bits, largest in ((8, 127), (7, 63)):
        kept, steps = quantising.quantise_weight(weights, bits)
        assert np.abs(kept.astype(int)).max() == largest
        assert np.abs(kept * steps - weights).max() <= steps.max() / 2 * 1.0001
        assert (
            np.abs(quantising.compensated(weights, steps, np.eye(64, dtype=np.float32), bits).astype(int)).max()
            <= largest
        )
