"""Graph files: safetensors with metadata, written whole, and read as if a stranger had made them."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gfviz.errors import GfvizError
from gfviz.files import atomic_path
from gfviz.graph.coactivation import CoactivationGraph, TextRecord
from gfviz.lazy import sparse

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT = "gfviz.graph"
VERSION = 1
_FIELDS = ("nodes", "normalize", "weighting", "positions", "space", "source", "held")


def save_graph(graph: CoactivationGraph, path: str | Path) -> None:
    """The body of `CoactivationGraph.save`: keys, labels, the sparse matrix, and the record of texts."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    path = Path(path)
    if path.suffix != ".safetensors":
        raise GfvizError(f"{path}: graphs are saved as .safetensors; export other formats with `gfviz export`")
    held = "factors" if graph.factors is not None else "accumulated"
    matrix = graph.factors if graph.factors is not None else graph.accumulated
    assert matrix is not None
    tensors = {
        "data": np.ascontiguousarray(matrix.data),
        "indices": matrix.indices.astype(np.int32),
        "indptr": matrix.indptr.astype(np.int64),
        **_blob("labels", [label.encode("utf-8", "surrogatepass") for label in graph.labels]),
    }
    tensors |= _blob("keys", list(graph.keys)) if graph.keys.dtype == object else {"keys": graph.keys.astype(np.int64)}
    if graph.record is not None:
        tensors["record.offsets"] = graph.record.offsets.astype(np.int64)
        if graph.record.texts:
            tensors |= _blob("record.texts", [text.encode("utf-8", "surrogatepass") for text in graph.record.texts])
        if graph.record.spans is not None:
            tensors["record.spans"] = np.ascontiguousarray(graph.record.spans, dtype=np.int64)
    fields = {
        "nodes": graph.nodes,
        "normalize": graph.normalize,
        "weighting": graph.weighting,
        "positions": graph.positions,
        "space": graph.space,
        "source": graph.source,
        "held": held,
    }
    metadata = {"format": FORMAT, "version": str(VERSION), "graph": json.dumps(fields)}
    with atomic_path(path) as scratch:
        try:
            save_file(tensors, scratch, metadata=metadata)
        except SafetensorError as error:
            raise GfvizError(f"cannot write {path}: {error}") from error


def load_graph(path: str | Path) -> CoactivationGraph:
    """Read a graph that `CoactivationGraph.save` wrote.

    Every array is checked (dtype, shape, bounds, finiteness, symmetry of an accumulated matrix) before it is used.
    Raises `GfvizError` naming the file and what is wrong with it. O(file size).

    >>> import tempfile, torch, gfviz as gv
    >>> signal = gv.TopKLogits.from_logits(torch.randn(5, 9), k=3)
    >>> graph = gv.CoactivationGraph.from_signal(signal)
    >>> path = tempfile.mkdtemp() + "/a.safetensors"
    >>> graph.save(path)
    >>> gv.load_graph(path).content_hash == graph.content_hash
    True
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    try:
        if not path.is_file():
            raise GfvizError(f"{path}: no such file")
        with safe_open(path, framework="np") as archive:
            metadata = archive.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise GfvizError(f"{path}: not a gfviz graph (make one with `gfviz graph`)")
            if metadata.get("version") != str(VERSION):
                raise GfvizError(
                    f"{path}: written in version {metadata.get('version', '?')[:20]} of the format, this program reads "
                    f"version {VERSION}: update gfviz, or make the graph again"
                )
            tensors = {key: archive.get_tensor(key) for key in archive.keys()}  # noqa: SIM118 (no iterator)
        return _assemble(_fields(metadata), tensors)
    except GfvizError as error:
        raise GfvizError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    except PermissionError as error:
        raise GfvizError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, OverflowError, MemoryError) as error:
        raise GfvizError(f"{path}: damaged or not a graph file ({str(error)[:200]})") from error


def _fields(metadata: Mapping[str, str]) -> dict:
    try:
        fields = json.loads(metadata["graph"])
    except RecursionError as error:
        raise GfvizError("the metadata is nested too deeply") from error
    if not isinstance(fields, dict) or not all(name in fields for name in _FIELDS):
        raise GfvizError("the metadata is incomplete")
    if type(fields["positions"]) is not int or not 1 <= fields["positions"] < 2**53:
        raise GfvizError("the number of positions is not a positive whole number")
    if not all(isinstance(fields[name], str) for name in _FIELDS if name != "positions"):
        raise GfvizError("the metadata has fields of the wrong type")
    return fields


def _assemble(fields: dict, tensors: dict[str, np.ndarray]) -> CoactivationGraph:
    labels = [raw.decode("utf-8", "surrogatepass") for raw in _unblob("labels", tensors)]
    keys = _keys(fields, tensors)
    n, positions = len(keys), fields["positions"]
    factors = fields["held"] == "factors"
    if fields["held"] not in ("factors", "accumulated"):
        raise GfvizError("the graph is held neither as factors nor accumulated")
    matrix = _csr(tensors, (positions if factors else n, n))
    if not factors:
        _require_psd_shape(matrix)
    return CoactivationGraph(
        nodes=fields["nodes"],
        normalize=fields["normalize"],
        weighting=fields["weighting"],
        positions=positions,
        keys=keys,
        labels=labels,
        space=fields["space"],
        factors=matrix if factors else None,
        accumulated=None if factors else matrix,
        record=_record(tensors, positions) if factors else None,
        source=fields["source"],
    )


def _keys(fields: dict, tensors: dict[str, np.ndarray]) -> np.ndarray:
    if fields["space"] == "bytes":
        raw = _unblob("keys", tensors)
        keys = np.empty(len(raw), dtype=object)
        keys[:] = raw
        ordered = all(a < b for a, b in pairwise(raw))
    else:
        keys = _array(tensors, "keys", np.int64, 1)
        ordered = bool((np.diff(keys) > 0).all()) and (len(keys) == 0 or keys[0] >= 0)
    if not ordered:
        raise GfvizError("the node keys are not ascending and distinct")
    return keys


def _csr(tensors: dict[str, np.ndarray], shape: tuple[int, int]) -> sparse.csr_array:
    data = tensors["data"]
    if data.dtype not in (np.float32, np.float64) or data.ndim != 1:
        raise GfvizError(f"the values are {data.dtype}, expected float32 or float64")
    if not np.isfinite(data).all():
        raise GfvizError("the values hold NaN or infinity")
    indices, indptr = _array(tensors, "indices", np.int32, 1), _array(tensors, "indptr", np.int64, 1)
    whole = len(indptr) == shape[0] + 1 and indptr[0] == 0 and indptr[-1] == len(indices) == len(data)
    if not whole or (np.diff(indptr) < 0).any():
        raise GfvizError("the sparse matrix has inconsistent row pointers")
    if len(indices) and (indices.min() < 0 or indices.max() >= shape[1]):
        raise GfvizError("the sparse matrix has a column outside the graph")
    matrix = sparse.csr_array((data, indices, indptr), shape=shape)
    if not matrix.has_canonical_format:
        raise GfvizError("the sparse matrix repeats or disorders its columns")
    return matrix


def _require_psd_shape(matrix: sparse.csr_array) -> None:
    difference = matrix - matrix.T
    if difference.nnz and np.abs(difference.data).max() > 0:
        raise GfvizError("the accumulated matrix is not symmetric")
    diagonal = matrix.diagonal()
    entries = matrix.tocoo()
    # |C_ij| ≤ √(C_ii C_jj) is what every Gram matrix obeys; it keeps a forged file from passing for one.
    bound = np.sqrt(np.maximum(diagonal, 0.0))
    if (diagonal < 0).any() or (np.abs(entries.data) > bound[entries.row] * bound[entries.col] * (1 + 1e-5)).any():
        raise GfvizError("the accumulated matrix is no co-activation matrix (an entry exceeds its diagonal)")


def _record(tensors: dict[str, np.ndarray], positions: int) -> TextRecord | None:
    if "record.offsets" not in tensors:
        return None
    offsets = _array(tensors, "record.offsets", np.int64, 1)
    if len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != positions or (np.diff(offsets) < 0).any():
        raise GfvizError("the record of texts has inconsistent offsets")
    texts: tuple[str, ...] = ()
    if "record.texts.lengths" in tensors:
        texts = tuple(raw.decode("utf-8", "surrogatepass") for raw in _unblob("record.texts", tensors))
        if len(texts) != len(offsets) - 1:
            raise GfvizError("the record of texts has another number of texts than offsets")
    spans = _array(tensors, "record.spans", np.int64, 2) if "record.spans" in tensors else None
    if spans is not None and (spans.shape != (positions, 2) or spans.min(initial=0) < 0):
        raise GfvizError("the record of texts has inconsistent spans")
    return TextRecord(offsets, texts, spans)


def _array(tensors: dict[str, np.ndarray], name: str, dtype: type, dimensions: int) -> np.ndarray:
    array = tensors[name]
    if array.dtype != dtype or array.ndim != dimensions:
        raise GfvizError(f"'{name}' is {array.dtype} with {array.ndim} axes, not {np.dtype(dtype)} with {dimensions}")
    return array


def _blob(name: str, parts: list[bytes]) -> dict[str, np.ndarray]:
    lengths = np.array([len(part) for part in parts], dtype=np.int64)
    return {f"{name}.bytes": np.frombuffer(b"".join(parts), dtype=np.uint8), f"{name}.lengths": lengths}


def _unblob(name: str, tensors: dict[str, np.ndarray]) -> list[bytes]:
    lengths, content = _array(tensors, f"{name}.lengths", np.int64, 1), _array(tensors, f"{name}.bytes", np.uint8, 1)
    if (lengths < 0).any() or (lengths > len(content)).any() or lengths.sum() != len(content):
        raise GfvizError(f"'{name}' has inconsistent lengths")
    raw, ends = content.tobytes(), np.cumsum(lengths)
    return [raw[end - length : end] for end, length in zip(ends.tolist(), lengths.tolist())]
