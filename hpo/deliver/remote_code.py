"""The factored form: a configuration and one Python file beside the weights, which load without this package.

The file holds the source of the layers of `hpo.compress.layers` that the model has, so there is one copy of
their code, and two classes that extend the architecture's own of transformers. The model type is a new one:
under the old one, whoever forgets ``trust_remote_code`` would get the plain architecture with random
numbers where its weights are missing; so it is an error instead.
"""

import ast
import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from string import Template
from types import ModuleType
from typing import Any

import transformers
from torch import nn

import hpo
from hpo.compress import layers
from hpo.compress.layers import Compressed
from hpo.errors import Unsupported

MODULE = "modeling_compressed"
"""Name of the Python file, without its ending."""

_HEADER = '''"""A compressed ${base_model}: some of its linear layers are held as factors.

Written by compression-hpo ${version}. Needs torch and transformers alone. The sizes of the factors
stand in the configuration under ``compression``.

SPDX-License-Identifier: Apache-2.0
"""

${imports}
from transformers import ${base_config}, ${base_model}


'''

_CLASSES = '''

class ${config}(${base_config}):
    """Configuration of ${base_model} with, under ``compression``, what became of its linear layers."""

    model_type = "${model_type}"


class ${model}(${base_model}):
    """${base_model} with factors in place of the layers named in ``config.compression``."""

    config_class = ${config}

    def __init__(self, config, *args, **kwargs):
        super().__init__(config, *args, **kwargs)
        for name, size in config.compression["layers"].items():
            parent, _, child = name.rpartition(".")
            old = getattr(self.get_submodule(parent), child, None)  # a packed cache takes nothing's place
            # as every parameter of a loaded model has it
            layer = _KINDS[size["kind"]].empty(size, old).requires_grad_(True)
            setattr(self.get_submodule(parent), child, layer)
        for module in self.modules():
            if isinstance(module, Compressed):
                module.connect(self)

    def _init_weights(self, module):
        # Factors come from a checkpoint only: there is no sensible way to draw them at random.
        if not isinstance(module, Compressed):
            super()._init_weights(module)


_KINDS = {${kinds}}
'''


def has_factors(model: nn.Module) -> bool:
    """Whether any layer is held in another form than the dense model's."""
    return bool(_compressed(model))


def _compressed(model: nn.Module) -> dict[str, Compressed]:
    return {name: module for name, module in model.named_modules() if isinstance(module, Compressed)}


def source(model: Any, base: Any) -> str:
    """Return the text of the Python file for a compressed `model` of the class of `base`.

    Raises:
        Unsupported: the model's classes are not of transformers.
    """
    kinds = {module.kind: type(module) for module in _compressed(model).values()}
    parsed = [_Source.of(inspect.getsource(file)) for file in _files(kinds.values())]
    names = _names(base) | {
        "imports": _imports(parsed),
        "kinds": ", ".join(f'"{name}": {kind.__name__}' for name, kind in kinds.items()),
    }
    body = "\n\n\n".join(part.body for part in parsed) + "\n"
    return Template(_HEADER).substitute(names) + body + Template(_CLASSES).substitute(names)


def _files(kinds: Iterable[type[Compressed]]) -> tuple[ModuleType, ...]:
    """Return the files that classes of layers stand in and those of the same package they import, which
    come first."""
    found: dict[ModuleType, None] = {}

    def add(file: ModuleType) -> None:
        for node in _Source.of(inspect.getsource(file)).imports:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{layers.__name__}."):
                add(import_module(str(node.module)))
        found[file] = None

    for kind in (Compressed, *kinds):
        add(import_module(kind.__module__))
    return tuple(found)


@dataclass(frozen=True)
class _Source:
    """A file of the layers, taken apart."""

    imports: tuple[ast.Import | ast.ImportFrom, ...]
    body: str
    """What follows the imports."""

    @classmethod
    def of(cls, text: str) -> "_Source":
        tree = ast.parse(text).body
        imports = [node for node in tree if isinstance(node, ast.Import | ast.ImportFrom)]
        # The docstring says what the module is to this package, not to a reader there.
        last = max([node.end_lineno or 0 for node in [tree[0], *imports]])
        return cls(tuple(imports), "".join(text.splitlines(keepends=True)[last:]).strip("\n"))


def _imports(parts: Sequence[_Source]) -> str:
    """Return the import lines of all parts, each name once, those of this package left out."""
    plain: set[str] = set()
    names: dict[str, set[str]] = {}
    for node in (node for part in parts for node in part.imports):
        if isinstance(node, ast.Import):
            plain |= {ast.unparse(alias) for alias in node.names}
        elif not (node.module or "").startswith("hpo"):
            names.setdefault(node.module or "", set()).update(map(ast.unparse, node.names))
    lines = [f"import {name}" for name in sorted(plain)]
    lines += [f"from {module} import {', '.join(sorted(found))}" for module, found in sorted(names.items())]
    return "\n".join(lines)


def configuration(model: Any, plan_hash: str) -> dict[str, Any]:
    """Return the keys of ``config.json`` that the factored form adds or replaces.

    Raises:
        Unsupported: the model's classes are not of transformers.
    """
    names = _names(model)
    return {
        "model_type": names["model_type"],
        "architectures": [names["model"]],
        "auto_map": {
            "AutoConfig": f"{MODULE}.{names['config']}",
            "AutoModelForCausalLM": f"{MODULE}.{names['model']}",
        },
        "compression": {
            "made_by": f"compression-hpo {hpo.__version__}",
            "plan": plan_hash,
            "layers": {
                name: {"kind": module.kind, **module.size()} for name, module in _compressed(model).items()
            },
        },
    }


def check_exportable(model: Any) -> None:
    """Refuse a model whose classes transformers does not have, since its code would have to come along.

    Raises:
        Unsupported: naming the class.
    """
    for kind in (type(model), type(model.config)):
        if getattr(transformers, kind.__name__, None) is not kind:
            raise Unsupported(
                f"{kind.__name__} is not a class of transformers {transformers.__version__}",
                "models that bring code of their own can be searched but not exported",
            )


def _names(model: Any) -> dict[str, str]:
    check_exportable(model)
    base_model, base_config = type(model).__name__, type(model.config).__name__
    return {
        "base_model": base_model,
        "base_config": base_config,
        "model": f"Compressed{base_model}",
        "config": f"Compressed{base_config}",
        "model_type": f"compressed_{model.config.model_type}",
        "version": hpo.__version__,
    }
