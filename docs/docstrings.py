"""
Griffe extension of the API reference: links the names of `docs/api.md`, and converts docstrings from the style of
transformers to the one that Griffe reads.
"""

import ast
import re
from pathlib import Path
from typing import Any

from griffe import Extension, GriffeError


PUBLIC = set(re.findall(r"^::: hf_dvflnet\.(\w+)$", Path(__file__).with_name("api.md").read_text("utf-8"), re.M))


class Docstrings(Extension):
    def on_package(self, *, pkg: Any, **kwargs: Any) -> None:
        self.package = pkg.path
        self.visit(pkg)

    def visit(self, owner: Any) -> None:
        for item in owner.members.values():
            if not item.is_alias:
                if item.docstring is not None:
                    item.docstring.value = self.rewritten(item)
                self.visit(item)

    def rewritten(self, item: Any) -> str:
        text = item.docstring.value
        if item.is_class and "Args:" not in text:
            text = with_fields(text, item)
        text = re.sub(r"^( *)(\w[\w, ]*) \((.*`.*)\):", lambda match: entry(match, item), text, flags=re.M)
        text = re.sub(r"\[`([\w.]+)`\](?![\[(])", lambda match: self.link(match[1], item), text)
        # Markdown needs an empty line before a list, and examples in a block of code
        text = re.sub(r"^(?!- )(\S.*)\n(?=- )", r"\1\n\n", text, flags=re.M)
        return text if "```" in text else re.sub(r"^>>> .*(?:\n.+)*", r"```python\n\g<0>\n```", text, flags=re.M)

    def link(self, name: str, item: Any) -> str:
        """Link public names, and members of the same class that have a docstring; leave other names as code."""
        owner = item if item.is_class else item.parent
        if name in PUBLIC:
            return f"[`{name}`][{self.package}.{name}]"
        member = name.removeprefix(f"{owner.name}.")
        if owner.name in PUBLIC and member in owner.members and owner.members[member].docstring:
            return f"[`{name}`][{self.package}.{owner.name}.{member}]"
        return f"`{name}`"


def entry(match: re.Match, item: Any) -> str:
    """Turn ``name (`type`, *optional*, defaults to x):`` into `name (type):`, with a default that no signature has."""
    name = match[2]
    kind, _, default = re.sub(r"\[?`\]?|\*", "", match[3]).replace("optional, ", "").partition("defaults to ")
    kind = re.sub(r",? ?(optional)?$", "", kind)
    try:
        known = item.parameters[name].default
    except (AttributeError, GriffeError, KeyError):
        known = None
    same = not default or str(known).strip("'\"") == default.strip("'\"")
    return f"{match[1]}{name}" + (f" ({kind}):" if kind else ":") + ("" if same else f" Defaults to `{default}`.")


def with_fields(text: str, item: Any) -> str:
    """Add the fields of a dataclass that have `metadata={"help": ...}` to its docstring."""
    fields = {
        name: re.search(r"'help': (.+)\}\)$", str(field.value))
        for name, field in item.members.items()
        if field.is_attribute
    }
    listed = [f"\n    {name}: {ast.literal_eval(found[1])}" for name, found in fields.items() if found]
    head, raises, tail = text.partition("Raises:")
    return f"{head}Args:{''.join(listed)}\n\n{raises}{tail}" if listed else text
