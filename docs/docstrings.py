"""
Griffe extension of the API reference: links public names, and brings docstrings, which are written as those of
transformers, into the form that Griffe reads.
"""

import ast
import re
from typing import Any

from griffe import Extension, GriffeError


class Docstrings(Extension):
    def on_package(self, *, pkg: Any, **kwargs: Any) -> None:
        self.package, self.public = pkg.path, set(pkg.exports or ())
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
        """A link to a public name, or to a member of the same class; other names remain code."""
        owner = item if item.is_class else item.parent
        if name.split(".")[0] in self.public:
            return f"[`{name}`][{self.package}.{name}]"
        if owner.is_class and owner.name in self.public and name in owner.members:
            return f"[`{name}`][{self.package}.{owner.name}.{name}]"
        return f"`{name}`"


def entry(match: re.Match, item: Any) -> str:
    """``name (`type`, *optional*, defaults to x):`` as `name (type):`, and a default that the signature lacks."""
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
    """The docstring of training arguments, with the fields that say in `metadata={"help": ...}` what they are."""
    fields = {
        name: re.search(r"'help': (.+)\}\)$", str(field.value))
        for name, field in item.members.items()
        if field.is_attribute
    }
    listed = [f"\n    {name}: {ast.literal_eval(found[1])}" for name, found in fields.items() if found]
    head, raises, tail = text.partition("Raises:")
    return f"{head}Args:{''.join(listed)}\n\n{raises}{tail}" if listed else text
