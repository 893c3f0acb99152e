"""The layers of the package, read from its own imports, also those in functions and for types."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import django_dynamo_failover

NAME = django_dynamo_failover.__name__
PACKAGE = Path(django_dynamo_failover.__file__).parent
MAX_LINES = 350

# Each needs a package that a site may not have, so that nothing of ours imports them.
OPTIONAL = {"health_check", "opentelemetry", "prometheus"}

# From the bottom. A module imports only from groups above its own in this list. `cache`, with
# `memcached` below it, and the package itself stand beside: nothing imports `cache`, which Django
# loads by its name in CACHES.
LAYERS = [
    {"exceptions", "keys", "breaker", "limiter", "histogram", "signals", "merge"},
    {"metrics"},
    {"scheduler", "singleflight", "recent", "reasons", "history"},
    {"snapshot"},
    {"conf", "record", "exported", "orders", "budget", "checkpoint", "table_spec"},
    {"payload", "table_templates", "table_policies", "table_state"},
    {"changes"},
    {"fallback"},
    {"guarded", "dynamo_client"},
    {"hot", "dynamo"},
    {"cold", "dynamo_admin", "dynamo_sample", "fleet", "clearing"},
    {"reader", "dynamo_health", "dynamo_sites", "drill", "table_making"},
    {"reconcile", "heartbeat"},
    {"adopting", "writer"},
    {"saving", "reporter", "readiness"},
    {"store"},
    {"runtime"},
    {"sessions"},
    {"asgi", "importing", "middleware", "moving_out", "users"} | OPTIONAL,
    {"checks", "models"},
    {"health"},
    {"deploy_checks", "panel", "views"},
    {"admin", "apps", "urls", "management"},
]
BESIDE = {"cache": {"memcached"}, "memcached": {"exceptions"}, "": set()}
SURFACE = set().union(*LAYERS[LAYERS.index({"sessions"}) + 1 :])

# Who alone may import what is not ours.
RESERVED = {
    "boto3": {"dynamo_client"},
    "botocore": {"dynamo_client"},
    "pymemcache": {"cache", "memcached"},
    "prometheus_client": {"prometheus"},
    "opentelemetry": {"opentelemetry"},
    "health_check": {"health_check"},
    "django.conf": {"runtime", "sessions"} | SURFACE,
    "django.core.cache": {"cache", "guarded", "hot", "runtime", "fallback"} | SURFACE,
    "django.contrib.sessions": {"fallback", "sessions"} | SURFACE,
    "django.http": SURFACE,
    "django.db": SURFACE,
    "pickle": set(),
    "marshal": set(),
    "shelve": set(),
}


def layer_of(module: str) -> int | None:
    return next((number for number, group in enumerate(LAYERS) if module in group), None)


def imports(source: str, module: str, *, is_package: bool = False) -> Iterator[str]:
    """Yield what is imported, as dotted names; `from a import b` as "a" and as "a.b"."""
    parts = module.split(".")
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=name, names=names, level=level):
                above = parts[: len(parts) - level + is_package] if level else []
                base = ".".join([*above, *([name] if name else [])])
                yield base
                yield from (f"{base}.{alias.name}" for alias in names)
            case ast.Call(
                func=ast.Name(id="import_module" | "import_string" | "__import__")
                | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield name


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


class Module:
    """One file of the package; `short` is its name in the lists above: "hot", "management", ""."""

    def __init__(self, path: Path) -> None:
        self.source = path.read_text()
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        self.dotted = ".".join([NAME, *(parts[:-1] if is_package else parts)])
        self.short = [*self.dotted.split("."), ""][1]
        self.imports = set(imports(self.source, self.dotted, is_package=is_package))

    @property
    def siblings(self) -> set[str]:
        """The other modules of the package that it imports."""
        ours = {name.split(".")[1] for name in self.imports if name.startswith(f"{NAME}.")}
        return {name for name in ours if is_module(name)} - {self.short}


def is_module(name: str) -> bool:
    return (PACKAGE / f"{name}.py").is_file() or (PACKAGE / name / "__init__.py").is_file()


MODULES = [Module(path) for path in sorted(PACKAGE.rglob("*.py"))]
each_module = pytest.mark.parametrize("module", MODULES, ids=lambda module: module.dotted)


@each_module
def test_a_module_has_its_place(module):
    assert module.short in BESIDE or layer_of(module.short) is not None


@each_module
def test_a_module_imports_only_from_layers_below(module):
    if module.short in BESIDE:
        assert module.siblings <= BESIDE[module.short]
    else:
        place = layer_of(module.short)
        below = set().union(*LAYERS[:place])
        assert module.siblings <= below


@each_module
def test_a_module_imports_nothing_that_is_reserved_for_others(module):
    forbidden = [package for package, users in RESERVED.items() if module.short not in users]
    assert not [
        name for name in module.imports for package in forbidden if is_within(name, package)
    ]


@each_module
def test_a_module_imports_none_that_needs_an_extra(module):
    assert not module.siblings & OPTIONAL


@each_module
def test_a_module_is_no_longer_than_350_lines(module):
    length = len(module.source.splitlines())
    assert length <= MAX_LINES


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("import a.b", {"a.b"}),
        ("from a import b", {"a", "a.b"}),
        ("from .. import runtime", {"p", "p.runtime"}),
        ("from ..runtime import current", {"p.runtime", "p.runtime.current"}),
        ("def f():\n    import boto3", {"boto3"}),
        ("if TYPE_CHECKING:\n    from boto3 import Session", {"boto3", "boto3.Session"}),
        ("importlib.import_module('boto3')", {"boto3"}),
    ],
)
def test_the_reader_finds_every_kind_of_import(line, found):
    assert set(imports(line, "p.management.command")) == found


def test_the_reader_resolves_an_import_in_a_package_of_its_own():
    assert set(imports("from . import a", "p.management", is_package=True)) == {
        "p.management",
        "p.management.a",
    }
