"""Holds the arrows between the rooms: who may import whom. A new arrow is added here on purpose."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOP_FOLDERS = ("policies", "kernels", "server", "clients", "training")

# What an engine is told and tells: plain data.
_ENGINE_DATA = {
    "skipserve.engine.limits",
    "skipserve.engine.reports",
    "skipserve.engine.request",
}

# Each room, and the rooms whose modules it may import besides its own. The longest name that
# fits a module is its room.
MAY_IMPORT: dict[str, set[str]] = {
    "skipserve_policies": set(),
    "skipserve_kernels": set(),
    "skipserve_kernels.plain": {"skipserve_kernels.key_values"},
    "skipserve_kernels.fused": {
        "skipserve_kernels.projection",
        "skipserve_kernels.plain.linear.reference",
        "skipserve_kernels.plain.rotary.reference",
        "skipserve_kernels.plain.swiglu.reference",
    },
    "skipserve_client": {"skipserve_policies"},
    "skipserve_training": {
        "skipserve.engine.plans",
        "skipserve.model",
        "skipserve.model_folder",
        "skipserve_client.evaluate",
        "skipserve.pretrained",
        "skipserve_policies",
    },
    "skipserve_training.calibration": {
        "skipserve.asking",
        *_ENGINE_DATA,
        "skipserve.engine.engine",
        "skipserve.engine.loading",
        "skipserve.errors",
        "skipserve.media.decode",
        "skipserve.model",
        "skipserve.model_folder",
        "skipserve.offline.questions",
        "skipserve.prompt",
        "skipserve_client",
        "skipserve_policies",
        "skipserve_training.progress",
    },
    # Files of media are read as the server reads them.
    "skipserve_training.mapping.media": {
        "skipserve.errors",
        "skipserve.media.frames",
        "skipserve.media.wav",
        "skipserve_policies",
        "skipserve_training.mapping",
    },
    "skipserve_training.reproduce": {"skipserve_client", "skipserve_training.calibration"},
    "skipserve_client.evaluate": {"skipserve_client", "skipserve_policies"},
    "skipserve": set(),
    "skipserve.errors": set(),
    "skipserve.digests": set(),
    "skipserve.hints": set(),
    "skipserve.playground": set(),
    "skipserve.ray": {
        "skipserve.engine.reports",
        "skipserve.engine.request",
        "skipserve.digests",
        "skipserve.errors",
        "skipserve.service.observer",
        "skipserve.service.service",
        "skipserve_policies",
    },
    "skipserve.ray.options": {"skipserve.ray.remote", "skipserve.settings"},
    "skipserve.ray.placing": set(),
    "skipserve.ray.deployments": {
        "skipserve.app",
        "skipserve.budgets.client",
        "skipserve.engine.limits",
        "skipserve.logging_setup",
        "skipserve.model_folder",
        "skipserve.ray",
        "skipserve.service.observer",
        "skipserve.settings",
    },
    "skipserve.ray.budgets": {
        "skipserve.budgets",
        "skipserve.errors",
        "skipserve.ray.wire",
    },
    "skipserve.ray.owner": {"skipserve.budgets", "skipserve.ray.budgets"},
    "skipserve.ray.pages": {"skipserve.metrics.table"},
    "skipserve.ray.launch": {
        "skipserve.engine.host_memory",
        "skipserve.model_folder",
        "skipserve.ray.application",
        "skipserve.ray.options",
        "skipserve.settings",
        "skipserve.stop_signals",
    },
    "skipserve.ray.application": {"skipserve.ray.deployments", "skipserve.ray.options"},
    "skipserve.stop_signals": set(),
    "skipserve.logging_setup": set(),
    "skipserve.pretrained": {"skipserve_policies"},
    "skipserve.pretrained.commands": {
        "skipserve_client.options",
        "skipserve.pretrained",
    },
    "skipserve.pretrained.places": set(),
    "skipserve.checkpoint_notes": {
        "skipserve.model.config",
        "skipserve.prompt",
        "skipserve_policies.sizes",
    },
    "skipserve.model_folder": {
        "skipserve.model.config",
        "skipserve.pretrained.places",
        "skipserve_policies",
    },
    "skipserve.settings": {
        "skipserve.media.hosts",
        "skipserve.pretrained.places",
        "skipserve_policies",
    },
    "skipserve.model": {
        "skipserve_kernels.key_values",
        "skipserve_kernels.plain.linear",
        "skipserve_kernels.projection",
        "skipserve_policies",
    },
    "skipserve.model.plain": {
        "skipserve.model",
        "skipserve_kernels.key_values",
        "skipserve_kernels.plain",
        "skipserve_kernels.projection",
        "skipserve_policies",
    },
    "skipserve.model.fused": {
        "skipserve.model",
        "skipserve_kernels.fused",
        "skipserve_kernels.key_values",
        "skipserve_policies",
    },
    "skipserve.engine": {
        "skipserve.model",
        "skipserve.errors",
        "skipserve.digests",
        "skipserve.grammar.fault",
        "skipserve.grammar.matcher",
        "skipserve.grammar.vocabulary",
        "skipserve_policies",
    },
    "skipserve.engine.limits": {"skipserve_policies"},
    "skipserve.engine.request": {"skipserve.digests", "skipserve_policies"},
    "skipserve.engine.reports": set(),
    "skipserve.service": {
        *_ENGINE_DATA,
        "skipserve.errors",
        "skipserve.logging_setup",
        "skipserve_policies",
    },
    "skipserve.service.arrivals": {
        "skipserve.engine.request",
        "skipserve.grammar.fault",
        "skipserve.grammar.matcher",
        "skipserve.service.messages",
    },
    "skipserve.service.loop": {
        "skipserve.engine.engine",
        "skipserve.engine.plans",
        "skipserve.engine.reports",
        "skipserve.errors",
        "skipserve.service.arrivals",
        "skipserve.service.ipc",
        "skipserve.service.messages",
    },
    "skipserve.service.process": {
        "skipserve.engine.loading",
        "skipserve.engine.reports",
        "skipserve.errors",
        "skipserve.logging_setup",
        "skipserve.model.config",
        "skipserve.service.ipc",
        "skipserve.service.loop",
    },
    "skipserve.metrics": {
        "skipserve.asking.auto.choice",
        "skipserve.budgets",
        "skipserve.grammar.outcome",
        "skipserve.media.fetch_fault",
        "skipserve.media.kill",
        "skipserve.engine.reports",
        "skipserve.service.observer",
        "skipserve_policies",
    },
    "skipserve.workers": {"skipserve.logging_setup"},
    "skipserve.grammar": {
        "skipserve.errors",
        "skipserve.logging_setup",
        "skipserve.media.places",
        "skipserve.model.config",
        "skipserve.prompt.tokenizer",
        "skipserve.prompt.tokenizer_files",
        "skipserve.workers",
    },
    "skipserve.media": {
        "skipserve.engine.request",
        "skipserve.errors",
        "skipserve.digests",
        "skipserve.logging_setup",
        "skipserve.model.config",
        "skipserve.model.image_processor",
        "skipserve.model.sound_processor",
        "skipserve.workers",
        "skipserve_policies.sizes",
    },
    "skipserve.prompt": {"skipserve.errors", "skipserve.model.config", "skipserve_policies"},
    "skipserve.budgets": {
        "skipserve.digests",
        "skipserve.errors",
        "skipserve.media.places",
        "skipserve_policies",
    },
    "skipserve.budgets.commands": {
        "skipserve_policies",
        "skipserve_client.options",
        "skipserve.budgets",
    },
    "skipserve.asking": {
        "skipserve.budgets.accounts",
        "skipserve.budgets.client",
        "skipserve.checkpoint_notes",
        "skipserve.engine.reports",
        "skipserve.engine.request",
        "skipserve.errors",
        "skipserve.digests",
        "skipserve.grammar.compiler",
        "skipserve.grammar.structure",
        "skipserve.media",
        "skipserve.model.config",
        "skipserve.prompt",
        "skipserve_policies",
    },
    "skipserve.api": {
        "skipserve.asking",
        "skipserve.budgets",
        "skipserve.engine.reports",
        "skipserve.engine.request",
        "skipserve.errors",
        "skipserve.grammar.structure",
        "skipserve.logging_setup",
        "skipserve.media.places",
        "skipserve.metrics",
        "skipserve.prompt.template",
        "skipserve.service.service",
        "skipserve_policies",
    },
    "skipserve.tracing": {
        "skipserve.api.exchange",
        "skipserve.api.paths",
        "skipserve.asking.account",
        "skipserve.engine.reports",
        "skipserve.genai_metrics",
    },
    "skipserve.genai_metrics": {"skipserve.api.exchange", "skipserve.engine.reports"},
    "skipserve.app": {
        "skipserve.api",
        "skipserve.asking",
        "skipserve.budgets",
        "skipserve.engine.limits",
        "skipserve.grammar.compiler",
        "skipserve.grammar.messages",
        "skipserve.media",
        "skipserve.metrics",
        "skipserve.model.config",
        "skipserve.model_folder",
        "skipserve.playground",
        "skipserve.prompt",
        "skipserve.service",
        "skipserve.settings",
        "skipserve.tracing",
        "skipserve_policies",
    },
    "skipserve.offline": {
        "skipserve.asking",
        "skipserve.budgets.client",
        *_ENGINE_DATA,
        "skipserve.engine.engine",
        "skipserve.engine.loading",
        "skipserve.errors",
        "skipserve.media",
        "skipserve.model.config",
        "skipserve.model_folder",
        "skipserve.prompt",
        "skipserve.settings",
        "skipserve_policies",
    },
    "skipserve.commands": {
        "skipserve.ray.launch",
        "skipserve.api.protocol",
        "skipserve.app",
        "skipserve.model_folder",
        "skipserve.asking.auto.chooser",
        "skipserve.asking.processor",
        "skipserve.errors",
        "skipserve.hints",
        "skipserve.stop_signals",
        "skipserve.logging_setup",
        "skipserve.settings",
        "skipserve_policies",
    },
}

# Third-party packages that a room never imports.
NEVER = {
    "skipserve_policies": {"torch", "numpy", "fastapi", "transformers", "httpx"},
    "skipserve_kernels": {"fastapi", "pydantic", "transformers", "prometheus_client"},
    "skipserve_client": {"torch", "fastapi", "transformers"},
    "skipserve.model": {"fastapi", "prometheus_client"},
    "skipserve.engine": {"fastapi", "prometheus_client", "uvicorn"},
    "skipserve.service": {"fastapi", "prometheus_client", "uvicorn"},
    "skipserve.service.local": {"torch"},
    "skipserve.budgets": {"torch", "fastapi", "starlette", "uvicorn", "prometheus_client"},
    "skipserve.asking": {"torch", "fastapi", "starlette", "uvicorn", "prometheus_client"},
    "skipserve.offline": {"fastapi", "starlette", "uvicorn", "prometheus_client"},
    "skipserve.api": {"torch"},
}


def _sources() -> Iterator[tuple[str, Path]]:
    for top in TOP_FOLDERS:
        for path in sorted((ROOT / top).rglob("*.py")):
            module = ".".join(path.relative_to(ROOT / top).with_suffix("").parts)
            yield module.removesuffix(".__init__"), path


def _imports(path: Path) -> Iterator[str]:
    """Yield imported names, with each name that a `from` takes: it may be a module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _is_within(name: str, room: str) -> bool:
    return name == room or name.startswith(room + ".")


def _room(name: str) -> str | None:
    rooms = [room for room in MAY_IMPORT if _is_within(name, room)]
    return max(rooms, key=len, default=None)


SOURCES = list(_sources())


@pytest.mark.fast
@pytest.mark.parametrize(("module", "path"), SOURCES, ids=[module for module, _ in SOURCES])
def test_imports_follow_the_arrows(module: str, path: Path) -> None:
    room = _room(module)
    assert room is not None
    allowed = MAY_IMPORT[room] | {room}
    for name in _imports(path):
        if _room(name) is not None:
            assert any(_is_within(name, target) for target in allowed), f"{module} -> {name}"
        for other, packages in NEVER.items():
            if _is_within(module, other):
                assert name.split(".")[0] not in packages, f"{module} -> {name}"


@pytest.mark.fast
def test_every_room_exists() -> None:
    modules = {module for module, _ in SOURCES}
    for room in MAY_IMPORT:
        assert any(_is_within(module, room) for module in modules), room


@pytest.mark.fast
def test_every_arrow_is_used() -> None:
    imported: dict[str, set[str]] = {room: set() for room in MAY_IMPORT}
    for module, path in SOURCES:
        room = _room(module)
        assert room is not None
        imported[room].update(_imports(path))
    for room, targets in MAY_IMPORT.items():
        for target in targets:
            assert any(_is_within(name, target) for name in imported[room]), f"{room} -> {target}"


@pytest.mark.fast
def test_modules_do_not_import_in_circles() -> None:
    names = {module for module, _ in SOURCES}
    graph = {
        module: {
            target
            for name in _imports(path)
            for target in (name, name.rpartition(".")[0])
            if target in names and target != module
        }
        for module, path in SOURCES
    }
    while leaves := {module for module, targets in graph.items() if not targets & graph.keys()}:
        for leaf in leaves:
            del graph[leaf]
    assert not graph, f"a cycle among {sorted(graph)}"


@pytest.mark.fast
def test_no_loose_or_nondescript_files() -> None:
    for top in (*TOP_FOLDERS, "tests"):
        assert not (ROOT / top / "__init__.py").exists()
    assert not list((ROOT / "tests").rglob("__init__.py"))
    for module, _ in SOURCES:
        assert module.rpartition(".")[2] not in {"utils", "helpers", "common", "misc"}
