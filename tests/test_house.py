"""The rules of docs/design.md: directions of imports, no comparison with names of methods, lengths of functions."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "jaxvid"
# They import no other module: every module may import them.
LEAVES = ["names", "files", "pixels", "shapes", "command", "processes"]
# Each module may import the leaves, and the modules before it.
ORDER = [
    *LEAVES,
    *("parallel", "core", "config"),
    *("nn", "losses", "optim"),
    *("data", "metrics"),
    *("images", "rewrite", "report", "progress", "writer", "mirror"),
    *("conditions", "models", "adversarial", "translation"),
    *("checkpoint", "card", "share", "run", "pretrained"),
    *("latents", "latent_modes", "token_modes", "tokens", "cache", "priors", "completion"),
    "methods",
    *("evaluate", "recorder", "train", "sample", "translate", "tokenize", "export", "recipe", "main", "__main__"),
]
ALONE = {"data", "metrics"}  # taken by other research code without the rest
FILES = sorted(ROOT.rglob("*.py"))
METHODS = {path.stem for path in (ROOT / "methods").glob("*.py")}


def module_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_modules(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "jaxvid":
            names |= {f"jaxvid.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.split(".")[1] for name in names if name.startswith("jaxvid.")}


@pytest.mark.parametrize(
    "path", [p for p in FILES if p != ROOT / "__init__.py"], ids=lambda p: str(p.relative_to(ROOT))
)
def test_a_file_imports_only_from_modules_before_its_own(path: Path) -> None:
    own = module_of(path)
    allowed = set() if own in LEAVES else {*LEAVES} if own in ALONE else {*ORDER[: ORDER.index(own)]}
    assert imported_modules(path) <= allowed | {own}


def test_models_know_no_config_loss_or_optimizer() -> None:
    models = [path for path in FILES if module_of(path) == "models"]
    found = {path.name: imported_modules(path) - {"nn", "models", *LEAVES} for path in models}
    assert found and not any(found.values())


def functions() -> Iterator[tuple[Path, ast.FunctionDef | ast.AsyncFunctionDef, bool]]:
    """Every function of the package, and whether it must be documented: a public one of a module or a public class.

    A method that overrides one of a base class in the same file is documented there, and Flax's `setup` by Flax.
    """
    for path in FILES:
        tree = ast.parse(path.read_text())
        classes = {each.name: each for each in tree.body if isinstance(each, ast.ClassDef)}

        def inherited(holder: ast.AST, classes: dict[str, ast.ClassDef] = classes) -> set[str]:
            bases = [classes[each.id] for each in getattr(holder, "bases", []) if getattr(each, "id", "") in classes]
            return {each.name for base in bases for each in base.body if isinstance(each, ast.FunctionDef)}.union(
                *map(inherited, bases)
            )

        public = [tree, *(each for name, each in classes.items() if name[0] != "_")]
        known = {
            id(each) for holder in public for each in holder.body if getattr(each, "name", "_") not in inherited(holder)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield path, node, id(node) in known and node.name[0] != "_" and node.name != "setup"


def test_no_function_has_more_than_70_lines() -> None:
    long = [f"{path.name}:{node.name}" for path, node, _ in functions() if node.end_lineno - node.lineno >= 70]
    assert not long


def test_public_functions_and_classes_are_documented() -> None:
    bare = [f"{path.name}:{node.name}" for path, node, public in functions() if public and not ast.get_docstring(node)]
    classes = [
        f"{path.name}:{node.name}"
        for path in FILES
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and node.name[0] != "_" and not ast.get_docstring(node)
    ]
    assert not bare and not classes


def depth(node: ast.AST) -> int:
    """How deep control flow nests in a function, its inner functions left out."""
    nested = (ast.If, ast.For, ast.While, ast.With, ast.Try)
    below = [child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.FunctionDef | ast.Lambda)]
    return max((isinstance(child, nested) + depth(child) for child in below), default=0)


def test_nothing_nests_deeper_than_four() -> None:
    assert not [f"{path.name}:{node.name}" for path, node, _ in functions() if depth(node) > 4]


def test_no_method_is_known_by_name_outside_of_the_methods() -> None:
    found = []
    for path in FILES:
        if module_of(path) == "methods":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare | ast.Match):
                text = ast.unparse(node.subject if isinstance(node, ast.Match) else node)
                strings = {each.value for each in ast.walk(node) if isinstance(each, ast.Constant)}
                if re.search(r"\.method\b (==|!=|in|not in)|\.method$", text) or strings & METHODS:
                    found.append(f"{path.name}:{node.lineno}: {text}")
    assert not found


def test_neither_torch_nor_tensorflow_is_needed() -> None:
    hide = "import sys; sys.modules['torch'] = sys.modules['tensorflow'] = None"
    code = f"{hide}; import jaxvid.main, jaxvid.sample, jaxvid.evaluate.__main__, jaxvid.metrics.weights"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT.parent)


def test_sampling_imports_no_evaluation() -> None:
    code = "import sys, jaxvid.sample; print('jaxvid.evaluate' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    assert out.stdout.strip() == "False"


def test_data_comes_without_jax() -> None:
    code = "import sys, jaxvid.data; print('jax' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    assert out.stdout.strip() == "False"
