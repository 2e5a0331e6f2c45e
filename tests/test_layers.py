"""Imports point down only: cli → tasks → edges → learned → functional; neighbours do not import each other."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "sa_upscale"
LAYERS = [
    {"cli", "__main__", "api"},
    {"cluster"},
    {"upscale", "video", "train", "evaluate", "compare", "publish", "doctor", "maps", "export"},
    {"config", "checkpoints", "images", "media", "journal", "record", "report", "engine", "data", "degrade"},
    {"models", "losses", "metrics"},
    {"functional"},
    {"errors", "defaults", "disk", "folders", "lanes", "memory", "processors", "__init__"},
]
ALLOWED = {
    ("__main__", "cli"),
    ("__init__", "api"),
    ("__init__", "errors"),
    ("config", "degrade"),
    ("data", "degrade"),
    ("data", "images"),
    ("data", "media"),
}


def layer(room):
    return next(index for index, rooms in enumerate(LAYERS) if room in rooms)


def rooms_imported(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "sa_upscale":
            names = [f"sa_upscale.{alias.name}" for alias in node.names if not alias.name.startswith("__")]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name} imports relatively"
            names = [node.module]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("sa_upscale."))


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_point_down(file):
    room = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for imported in rooms_imported(file):
        assert imported == room or (room, imported) in ALLOWED or layer(imported) > layer(room), (
            f"{room} must not import {imported}"
        )
