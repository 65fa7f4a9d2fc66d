"""Recipes for their users: a list of all, fields set from words, and those fields described."""

import ast
import io
import re
import shlex
import textwrap
import tokenize
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxvid import config as config_lib
from jaxvid.names import nearest

# Whose names the recipe need not have: arguments of functions of optax, and what a player has for itself.
ARGUMENT = re.compile(r"optim\.(players\.\w+\.)?(schedule_)?arguments\.\w+")
PLAYER = re.compile(r"optim\.players\.(\w+)\.(\w+)(\.\w+)?")


def listed() -> str:
    """All recipes of jaxvid: the name of each, what it is, in a line, and its variants."""
    names = config_lib.recipes()
    width = max(map(len, names), default=0) + 2
    lines = ["--config RECIPE, or RECIPE:VARIANT, with RECIPE one of these, or a file of your own:"]
    for name in names:
        about = (config_lib.recipe_module(name).__doc__ or "").partition("\n")[0].partition(". ")[0].rstrip(".")
        lines.append(f"  {name:<{width}}{textwrap.shorten(about, 100, placeholder=' ...')}".rstrip())
        lines += [f"  {'':<{width}}{variants_of(name)}"] if variants_of(name) else []
    return "\n".join(lines)


def variants_of(name: str) -> str:
    """The variants that a recipe names, as they are written behind it: ":vq, :fsq, :tiny"."""
    return ", ".join(f":{variant}" for variant in getattr(config_lib.recipe_module(name), "VARIANTS", ()))


def set_field(config: ConfigDict, name: str, text: str | None, recipe: str) -> None:
    """Sets a field, "train.steps", to what `text` spells, in the type that it has; None stands for true.

    Arguments of optax's functions may be new, and so may fields of a player's optimizer that the recipe leaves to the
    shared ones. The method checks their names.

    Raises ValueError, in one sentence: the recipe has no such field, or the text spells no such value.
    """
    if match := PLAYER.fullmatch(name):
        own_field(config, match[1], match[2])
    *path, last = name.split(".")
    holder: Any = config
    for part in path:
        holder = holder.get(part) if isinstance(holder, ConfigDict) else None
    if not isinstance(holder, ConfigDict) or (last not in holder and not ARGUMENT.fullmatch(name)):
        raise unknown(name, config, recipe)
    try:
        value = spelled(text, holder.get(last))
    except ValueError as error:
        given = f"--config.{name}" if text is None else f"--config.{name}={text}"
        raise ValueError(f"{given}: {error}") from None
    with config.unlocked(), config.ignore_type():
        holder[last] = value


def own_field(config: ConfigDict, player: str, field: str) -> None:
    """Gives a player's optimizer a field of its own, with the value of the shared one, unless it has one."""
    optim = config.get("optim", {})
    if field != "players" and field in optim and field not in optim.get("players", {}).get(player, {}):
        with config.unlocked():
            own = ConfigDict(optim.players.get(player, {}))
            own[field] = optim.copy_and_resolve_references()[field]
            optim.players[player] = own


def spelled(text: str | None, present: Any) -> Any:
    """The value of a text, in the type of the present one; ValueError says what was expected."""
    if text is None:
        if isinstance(present, bool):
            return True
        raise ValueError("a value is missing, give it behind an equals sign.")
    if isinstance(present, str):
        return text
    value = config_lib.literal(text)
    if isinstance(present, bool):
        if str(value) not in ("True", "False", "0", "1"):
            raise ValueError("expected true or false.")
        return str(value) in ("True", "1")
    if isinstance(present, int | float):
        kind, words = (int, "a whole number") if isinstance(present, int) else (float, "a number")
        try:
            return kind(text)
        except ValueError:
            raise ValueError(f"expected {words}.") from None
    if isinstance(present, tuple):
        if isinstance(value, str) and value == text:  # names, without the quotes that a shell would take away
            if not re.fullmatch(r"[^\s()\[\]'\"]*", text):
                raise ValueError('expected a tuple, such as \'("a", "b")\', or a,b.')
            value = tuple(name for name in text.split(",") if name)
        return tuple(value) if isinstance(value, list | tuple) else (value,)
    if isinstance(present, ConfigDict):
        if not isinstance(value, dict):
            raise ValueError("these are several fields, set one of them.")
        return ConfigDict(value)
    return value


def unknown(name: str, config: ConfigDict, recipe: str) -> ValueError:
    """The error about a field that the recipe does not have: who has it, or else the nearest that there is."""
    section, path = name.partition(".")[0], recipe.partition(":")[0]
    lacking, known = section not in config, config_lib.recipes()
    for other in (path, *(known if path in known else sorted(map(str, Path(path).parent.glob("*.py"))))):
        for holder, fields in alternatives(other):
            if has(fields, name) and (lacking or fields.get("method") == config.get("method")):
                why = f": its method, {config.get('method')}, has no config.{section}" if lacking else ""
                return ValueError(f"--config.{name}: no such field in {recipe}{why}; {holder} has it.")
    fields = [f"config.{field}" for field in config_lib.flatten(config)]
    return ValueError(f"--config.{name}: no such field; the nearest is --{nearest(f'config.{name}', fields)}.")


def alternatives(name: str) -> list[tuple[str, ConfigDict]]:
    """A recipe and its variants, those that it lists as VARIANTS, and their configs; none of what is no recipe."""
    try:
        if "def get_config(" not in Path(config_lib.recipe_path(name)).read_text():  # nothing else is run
            return []
        variants = getattr(config_lib.recipe_module(name), "VARIANTS", ())
        return [(each, config_lib.recipe(each)) for each in (name, *(f"{name}:{variant}" for variant in variants))]
    except (OSError, ValueError):
        return []


def has(config: Any, name: str) -> bool:
    """Whether a config has a field of this dotted name."""
    for part in name.split("."):
        if not isinstance(config, ConfigDict) or part not in config:
            return False
        config = config[part]
    return True


def described(config: ConfigDict, recipe: str) -> str:
    """The fields of a recipe, as they are set on the command line, with their values and comments."""
    notes, variants = comments(recipe), variants_of(recipe)
    lines = [f"{recipe}" + (f" (variants: {variants})" if variants else "")]
    for name, value in config_lib.flatten(config).items():
        several = isinstance(value, ConfigDict)  # and none as yet
        setting = f"--config.{name}.NAME=VALUE" if several else shlex.quote(f"--config.{name}={value}")
        lines.append(f"  {setting:<50}  {notes.get(name, '')}".rstrip())
    return "\n".join(lines)


def comments(recipe: str) -> dict[str, str]:
    """By dotted name, the comments beside or above the fields of a recipe in its source, and in jaxvid/config.py."""
    shared = Source(Path(config_lib.__file__).read_text(), {})
    text = Path(config_lib.recipe_path(recipe)).read_text()
    return Source(text, {name: shared.of_function(name) for name in shared.functions}).of_all()


class Source:
    """The comments of a file that makes a config, out of its text; `helpers` are those of functions that it calls."""

    def __init__(self, text: str, helpers: Mapping[str, dict[str, str]]):
        body = ast.parse(text).body
        self.functions = {node.name: node for node in body if isinstance(node, ast.FunctionDef)}
        self._helpers = helpers
        self._constants = {ast.unparse(n.targets[0]): n.value for n in body if isinstance(n, ast.Assign)}
        self._beside: dict[int, str] = {}  # by line
        self._alone: dict[int, str] = {}
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                kind = self._beside if token.line[: token.start[1]].strip() else self._alone
                kind[token.start[0]] = token.string.lstrip("# ")

    def of_all(self) -> dict[str, str]:
        """Of all functions, the first of which comes before the others."""
        found: dict[str, str] = {}
        for name in self.functions:
            found = self.of_function(name) | found
        return found

    def of_function(self, name: str) -> dict[str, str]:
        """Of what a function assigns: `config.model.width = 64  # channels` is {"model.width": "channels"}."""
        found: dict[str, str] = {}
        for node in ast.walk(self.functions[name]):
            if isinstance(node, ast.Assign) and (target := ast.unparse(node.targets[0])).isidentifier() | (
                "." in target
            ):
                field = target.partition(".")[2]
                inner = {f"{field}.{key}".lstrip("."): note for key, note in self._of_value(node.value).items()}
                found |= inner | self._of_line(field, node.lineno, node.value.end_lineno)
        return found

    def _of_line(self, field: str, start: int, end: int | None) -> dict[str, str]:
        """The comment beside the end of an entry, or else those on the lines above it."""
        first = start
        while first - 1 in self._alone:
            first -= 1
        note = self._beside.get(end or start) or " ".join(self._alone[line] for line in range(first, start))
        return {field: note} if note else {}

    def _of_value(self, value: ast.expr) -> dict[str, str]:
        """Of the entries of a dict, written here, or above as a constant, or made by a helper."""
        if isinstance(value, ast.Name) and value.id in self._constants:
            return self._of_value(self._constants[value.id])
        if isinstance(value, ast.Call):
            name = getattr(value.func, "attr", "")
            if name == "get":  # a constant's entry, by the variant
                table = self._constants.get(ast.unparse(value.func).removesuffix(".get"))
                entries = table.values if isinstance(table, ast.Dict) else []
                return {key: note for entry in entries for key, note in self._of_value(entry).items()}
            return self._helpers.get(name) or (self._of_value(value.args[0]) if value.args else {})
        found: dict[str, str] = {}
        if not isinstance(value, ast.Dict):
            return found
        last = {key.lineno: key for key in value.keys if key}  # of the entries on a line, that of its comment
        for key, entry in zip(value.keys, value.values, strict=True):
            inner = self._of_value(entry)
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                inner = {f"{key.value}.{name}": note for name, note in inner.items()}
                inner |= self._of_line(key.value, key.lineno, entry.end_lineno) if key in last.values() else {}
            found |= inner
        return found
