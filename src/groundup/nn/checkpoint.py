"""Checkpoint folders in the layout of the Hugging Face libraries, read and written: ``config.json`` and safetensors.

    config.json                      {"model_type": "gpt2", ...}
    model.safetensors                one file, or
    model.safetensors.index.json     {"metadata": {...}, "weight_map": {tensor: file}} and its shards
    tokenizer.json                   kept beside it by whoever has one

A model says which of its tensors is which of theirs by a table of :class:`Source`; both directions read the same table,
so what is saved is by construction what is loaded.  Nothing here unpickles: a folder that has pickled weights only is
refused, with the way to convert it.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from groundup.errors import ModelError

_PIECE = 16 * 2**20
"""Bytes after which a mapped file is opened anew while it is read, so that its pages do not stay beside the copies."""


class Source(NamedTuple):
    """Where one of our tensors is in their layout.

    Attributes:
        names: theirs; several are stacked along the first axis in this order.
        transposed: whether theirs are (in, out) and ours (out, in), as GPT-2's.
        rows: rows of ours that each of them is; equal parts where left out.
    """

    names: tuple[str, ...]
    transposed: bool = False
    rows: tuple[int, ...] | None = None

    def parts(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """Our tensor cut into theirs, not yet transposed."""
        if self.rows is not None:
            return tensor.split(self.rows)  # type: ignore[no-any-return, no-untyped-call]
        return tensor.chunk(len(self.names))


def linear(ours: str, *theirs: str, transposed: bool = False, bias: bool = True, rows: tuple[int, ...] | None = None) -> dict[str, Source]:
    """Table rows of an affine map's weight and bias.

    >>> linear("out", "c_proj", transposed=True)["out.weight"]
    Source(names=('c_proj.weight',), transposed=True, rows=None)
    """
    table = {f"{ours}.weight": Source(tuple(f"{t}.weight" for t in theirs), transposed, rows)}
    return table | ({f"{ours}.bias": Source(tuple(f"{t}.bias" for t in theirs), rows=rows)} if bias else {})


class Pretrained(nn.Module, ABC):
    """A network that is loaded from checkpoint folders and saved as one.

    A subclass has ``from_config`` and ``to_config`` (its constructor's arguments from and to their ``config.json``) and
    ``sources`` (which tensor is which).
    """

    MODEL_TYPES: ClassVar[tuple[str, ...]] = ()
    """``model_type`` of the configs that it reads."""
    PREFIX: ClassVar[str] = ""
    """What stands before every name in checkpoints with a head, and is missing in those without."""
    IGNORED: ClassVar[tuple[str, ...]] = ()
    """Ends of names that checkpoints carry and that this network has no use for."""
    TIED: ClassVar[Mapping[str, str]] = {}
    """Their name of a second copy that some checkpoints carry -> their name of the tensor that it must equal."""
    HEAD: ClassVar[tuple[str, ...]] = ()
    """Constructor arguments that say what the head answers: what fine-tuning may ask otherwise of a checkpoint."""

    @classmethod
    @abstractmethod
    def from_config(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Constructor arguments from their configuration.

        Raises:
            ModelError: it asks for what the architecture here does not have.
        """

    @abstractmethod
    def to_config(self) -> dict[str, Any]:
        """Their configuration of this network."""

    @abstractmethod
    def sources(self) -> dict[str, Source]:
        """Every tensor of :meth:`state_dict` that a checkpoint holds -> where it is; tied ones once."""

    def new_head(self, files: Weights) -> set[str]:
        """Draw the weights of the head, and of what stands before it and is not in these files; returns their names."""
        return set()

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        dtype: torch.dtype | None = None,
        device: str | torch.device = "cpu",
        fresh_head: Mapping[str, Any] | None = None,
    ) -> Self:
        """The network of a checkpoint folder, evaluating.

        Weights are copied from the mapped file tensor by tensor into memory that is taken once.

        Args:
            folder: with ``config.json`` and safetensors.
            dtype: of the weights; the checkpoint's where left out.
            device: where they go.
            fresh_head: constructor arguments of a head that is drawn anew, for fine-tuning; the checkpoint's own is left out.

        Raises:
            ModelError: no such folder, another architecture, an argument in ``fresh_head`` that is not the head's, pickled
                weights, a damaged file, a missing, surplus or wrongly shaped tensor (each is named).
        """
        folder = Path(folder)
        config = read_config(folder)
        if config.get("model_type") not in cls.MODEL_TYPES:
            raise ModelError(
                f"{folder / 'config.json'}: expected model_type {' or '.join(cls.MODEL_TYPES)} for {cls.__name__},"
                f" got {config.get('model_type')!r}"
            )
        files = Weights(folder)
        arguments = cls.from_config(config)
        if fresh_head is not None and (not cls.HEAD or set(fresh_head) - set(cls.HEAD)):
            allowed = " and ".join(cls.HEAD) or "none, since it has one head only"
            raise ModelError(f"fresh_head: {cls.__name__} takes {allowed}, got {', '.join(fresh_head)}; all else is as in the checkpoint")
        if fresh_head:
            arguments = {k: v for k, v in arguments.items() if k not in cls.HEAD} | dict(fresh_head)
        with torch.device("meta"), _Unfilled():
            network = cls(**arguments)
        network.to(dtype or files.dtype(network._names(files)))
        network.to_empty(device=device)
        network._fill(files, frozenset() if fresh_head is None else network.new_head(files))
        return network.eval()

    def save_pretrained(self, folder: str | Path, *, shard_bytes: int = 5_000_000_000) -> None:
        """Write ``config.json`` and the weights; a model file is replaced whole or not at all.

        Args:
            folder: made if it is not there.
            shard_bytes: weights beyond this size go to several files.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        dtype = str(next(self.parameters()).dtype).removeprefix("torch.")
        write_weights(folder, self.to_checkpoint(), shard_bytes)
        _write(folder / "config.json", json.dumps(self.to_config() | {"dtype": dtype}, indent=2) + "\n")

    @torch.no_grad()
    def to_checkpoint(self, state: Mapping[str, Tensor] | None = None) -> Iterator[tuple[str, Tensor]]:
        """Their name and tensor of every weight, one after another.

        Args:
            state: other tensors of the same names and shapes, gradients for example, in place of the weights.
        """
        state = self.state_dict() if state is None else state
        for ours, source in self.sources().items():
            for name, part in zip(source.names, source.parts(state[ours]), strict=True):
                yield name, (part.T if source.transposed and part.ndim == 2 else part).contiguous()

    def _names(self, files: Weights) -> dict[str, str]:
        """Name in :meth:`sources` -> the name in these files, which may lack the prefix."""
        wanted = [name for source in self.sources().values() for name in source.names]
        bare = self.PREFIX and not any(name.startswith(self.PREFIX) for name in files)
        return {name: name.removeprefix(self.PREFIX) if bare else name for name in wanted}

    @torch.no_grad()
    def _fill(self, files: Weights, fresh: Set[str]) -> None:
        """Copy every tensor but the ``fresh`` ones of a new head, in whose favour what is outside of the trunk is left."""
        sources = {ours: source for ours, source in self.sources().items() if ours not in fresh}
        wanted = {name for source in sources.values() for name in source.names}
        names = {ours: theirs for ours, theirs in self._names(files).items() if ours in wanted}
        state, problems = self.state_dict(), []
        copies = {copy: names[first] for copy, first in self.TIED.items() if copy in files and copy not in names and first in names}
        surplus = set(files) - set(names.values()) - set(copies) - {n for n in files if self.IGNORED and n.endswith(self.IGNORED)}
        if fresh and any(name.startswith(self.PREFIX) for name in files):
            surplus = {name for name in surplus if name.startswith(self.PREFIX)}
        problems += [f"missing: {theirs}" for theirs in names.values() if theirs not in files]
        problems += [f"surplus: {theirs}, which {type(self).__name__} has no place for" for theirs in sorted(surplus)]
        places: dict[str, tuple[Tensor, bool]] = {}
        for ours, source in sources.items():
            for name, part in zip(source.names, source.parts(state[ours]), strict=True):
                places[names[name]] = (part, source.transposed and part.ndim == 2)
        for name, (part, transposed) in places.items():
            expected = tuple(reversed(part.shape)) if transposed else tuple(part.shape)
            if name in files and files.shape(name) != expected:
                problems.append(f"wrongly shaped: {name} is {files.shape(name)}, the config makes it {expected}")
        for copy, first in copies.items():
            tensors = dict(files.read([copy, first])) if first in files else {}
            if tensors and not torch.equal(tensors[copy], tensors[first]):
                problems.append(f"{copy} is a second copy of {first} in this architecture, and differs from it")
        if problems:
            shown = "\n  ".join(problems[:20]) + (f"\n  and {len(problems) - 20} more" if len(problems) > 20 else "")
            raise ModelError(f"{files.folder}: the weights do not fit the config\n  {shown}")
        for name, tensor in files.read(places):
            part, transposed = places[name]
            part.copy_(tensor.T if transposed else tensor)


class _Unfilled(TorchFunctionMode):
    """Leaves new parameters as they are: there is nothing to draw on the meta device, and trying imports 800 modules (80 MB)."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init" or func in _DRAWING:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


_DRAWING = (Tensor.normal_, Tensor.uniform_, Tensor.fill_, Tensor.zero_, Tensor.div_)


class Weights(Mapping[str, str]):
    """The tensors of a checkpoint folder: name -> file name.

    Raises:
        ModelError: none there, pickled ones only, an index that names a file outside the folder or one that is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
        if single.is_file():
            with self._open(single.name) as f:
                self._files = dict.fromkeys(f.keys(), single.name)
        elif index.is_file():
            self._files = self._read_index(index)
        else:
            pickled = sorted(p.name for p in folder.glob("*") if p.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl"))
            if pickled:
                raise ModelError(
                    f"{folder}: the weights are pickled ({pickled[0]}), and unpickling runs whatever is in the file; if you trust where it"
                    " came from, convert it once: safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'model.safetensors')"
                )
            raise ModelError(f"{folder}: expected model.safetensors or model.safetensors.index.json, found neither")

    def _read_index(self, index: Path) -> dict[str, str]:
        try:
            files = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            named = {str(k): str(v) for k, v in files.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise ModelError(f'{index}: expected {{"weight_map": {{tensor: file}}}}, and it is not that ({e})') from e
        for file in sorted(set(named.values())):
            if Path(file).name != file or file.startswith("."):
                raise ModelError(f"{index}: the file {file!r} is not in the checkpoint's own folder")
            if not (self.folder / file).is_file():
                raise ModelError(f"{index}: the shard {file} is missing; copy it beside the index")
            with self._open(file) as f:
                inside = set(f.keys())
            if absent := sorted(k for k, v in named.items() if v == file and k not in inside):
                raise ModelError(f"{index}: {file} does not hold {absent[0]}, which the index says it does")
        return named

    def __getitem__(self, name: str) -> str:
        return self._files[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def _open(self, file: str) -> Any:
        try:
            return safe_open(self.folder / file, framework="pt")
        except (SafetensorError, OSError) as e:
            raise ModelError(f"{self.folder / file}: not a whole safetensors file ({e}); copy or download it again") from e

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one tensor, from its header."""
        with self._open(self[name]) as f:
            return tuple(f.get_slice(name).get_shape())

    def dtype(self, names: Mapping[str, str]) -> torch.dtype:
        """The type of the first of these tensors that is there."""
        for name in names.values():
            if name in self:
                with self._open(self[name]) as f:
                    found: torch.dtype = f.get_slice(name)[:0].dtype if f.get_slice(name).get_shape() else f.get_tensor(name).dtype
                    return found
        return torch.float32

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """These tensors, mapped, file by file; use each before asking for the next."""
        by_file: dict[str, list[str]] = {}
        for name in names:
            by_file.setdefault(self[name], []).append(name)
        for file, inside in by_file.items():
            queue = list(reversed(inside))
            while queue:
                seen = 0
                with self._open(file) as f:
                    while queue and seen < _PIECE:
                        name = queue.pop()
                        tensor = f.get_tensor(name)
                        seen += tensor.numel() * tensor.element_size()
                        yield name, tensor
                        del tensor


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json`` of a checkpoint folder.

    Raises:
        ModelError: no such folder or file, or no JSON object in it.
    """
    path = folder / "config.json"
    if not folder.is_dir():
        raise ModelError(f"expected a checkpoint folder with config.json and model.safetensors, and there is no folder {folder}")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise ModelError(f"{path}: cannot be read ({e.strerror}); a checkpoint folder has one beside its weights") from e
    except ValueError as e:
        raise ModelError(f"{path}: not JSON ({e})") from e
    if not isinstance(config, dict):
        raise ModelError(f"{path}: expected a JSON object, got {type(config).__name__}")
    return config


def require(config: Mapping[str, Any], **expected: Any) -> None:
    """Refuse a config that sets what the architecture here does in one way only.

    Raises:
        ModelError: a key is there with another value.
    """
    for key, value in expected.items():
        if config.get(key, value) != value:
            raise ModelError(f"config.json: {key} is {config[key]!r}, and this architecture has {value!r} only")


def choose(config: Mapping[str, Any], key: str, names: Mapping[str, str], default: str) -> str:
    """Our word for the value of a key.

    Raises:
        ModelError: a value that has no equal here.
    """
    value = config.get(key, default)
    if value not in names:
        raise ModelError(f"config.json: {key} is {value!r}; expected {', '.join(map(repr, names))}")
    return names[value]


def write_weights(folder: Path, tensors: Iterable[tuple[str, Tensor]], shard_bytes: int) -> None:
    """Write safetensors, in shards with an index where they are larger than ``shard_bytes``; what lay there before is removed."""
    written: list[tuple[Path, list[str]]] = []
    shard: dict[str, Tensor] = {}
    size = total = 0

    def flush() -> None:
        temporary = folder / f".shard-{len(written)}.part"
        save_file(shard, temporary, metadata={"format": "pt"})
        written.append((temporary, list(shard)))
        shard.clear()

    for name, tensor in tensors:
        n = tensor.numel() * tensor.element_size()
        if shard and size + n > shard_bytes:
            flush()
            size = 0
        shard[name] = tensor
        size, total = size + n, total + n
    flush()
    old = {p.name for p in folder.glob("model*.safetensors")}
    many = len(written) > 1
    files = [f"model-{i + 1:05d}-of-{len(written):05d}.safetensors" if many else "model.safetensors" for i in range(len(written))]
    for (temporary, _), file in zip(written, files, strict=True):
        temporary.replace(folder / file)
    index = folder / "model.safetensors.index.json"
    if many:
        weight_map = {name: file for (_, names), file in zip(written, files, strict=True) for name in names}
        _write(index, json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2) + "\n")
    else:
        index.unlink(missing_ok=True)
    for file in old - set(files):
        (folder / file).unlink()


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
