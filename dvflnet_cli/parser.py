"""The parser of all commands: transformers' `HfArgumentParser`, with positional arguments and YAML files."""

import argparse
import copy
import dataclasses
import inspect
import json
import re
import sys
from pathlib import Path
from typing import Any, NoReturn

import yaml
from transformers.hf_argparser import HfArgumentParser

from .common import one_line, say


class CommandParser(HfArgumentParser):
    """
    Parse the options of a command into dataclasses, the first of which is the command itself.

    An option is spelled with underscores; `HfArgumentParser` also accepts hyphens. `--config FILE.yaml` reads options
    from a file; those on the command line override it. Errors are one sentence with exit code 2.
    """

    def __init__(self, name: str, *kinds: type):
        description = inspect.getdoc(kinds[0])
        super().__init__(
            kinds, prog=f"dvflnet {name}", description=description, formatter_class=_Help, allow_abbrev=False
        )
        self.places = [str(action.metavar) for action in self._get_positional_actions()]
        self.usage = " ".join(["%(prog)s", *self.places, "[--OPTION VALUE ...]"])
        help = "YAML file of options, which the command line overrides. Can be given several times."
        self.add_argument("--config", action="append", metavar="FILE.yaml", help=help)

    @staticmethod
    def _parse_dataclass_field(parser, field: dataclasses.Field):
        """Add a field to the parser. The field is copied, as `HfArgumentParser` passes all metadata on to argparse."""
        field, metadata = copy.copy(field), dict(field.metadata)
        metadata.pop("limits", None)
        if not metadata.pop("positional", False):
            field.metadata = metadata  # type: ignore[assignment]
            return HfArgumentParser._parse_dataclass_field(parser, field)
        metadata["metavar"] = metadata["metavar"] or field.name.upper()
        required = field.default is field.default_factory  # both are MISSING
        if field.type == list[str]:
            metadata |= {"nargs": "+"} if required else {"nargs": "*", "default": []}
        elif not required:
            metadata |= {"nargs": "?", "default": field.default}
        parser.add_argument(field.name, type=Path if field.type is Path else str, **metadata)

    def parse(self, words: list[str]) -> tuple[list[Any], dict[str, Any]]:
        """Return the dataclasses, and the options that were given, by name, without access tokens."""
        words = self._with_flags(self._with_files(words))
        namespace, unknown = self.parse_known_intermixed_args(words)
        if unknown:
            word = next((word for word in unknown if word.startswith("--")), unknown[0])
            self.error(f"no such option: {word}" if word.startswith("--") else f"unexpected argument: {word}")
        found = []
        for kind in self.dataclass_types:
            values = {field.name: getattr(namespace, field.name) for field in dataclasses.fields(kind) if field.init}
            for field in dataclasses.fields(kind):
                low, high = field.metadata.get("limits", (None, None))
                if None not in (low, value := values.get(field.name)) and not low <= value <= high:
                    self.error(f"--{field.name} must be from {low} to {high:g}, got {value}")
            try:  # transformers' dataclasses check their values, too
                found.append(kind(**values))
            except ValueError as error:
                self.error(str(error))
        options = [self._option_string_actions.get(word.split("=")[0]) for word in words]
        names = [option.dest for option in options if option is not None and not option.dest.endswith("_token")]
        return found, {name: getattr(namespace, name) for name in names}

    def _with_files(self, words: list[str]) -> list[str]:
        """Put the options of `--config` files first: if an option occurs twice, the later one counts."""
        files = argparse.ArgumentParser(prog=self.prog, add_help=False, allow_abbrev=False)
        files.add_argument("--config", action="append", default=[])
        named, words = files.parse_known_args(words)
        while words and not self.places and words[0].endswith((".yaml", ".yml")):  # as before there was `--config`
            named.config.append(words.pop(0))
        options: dict[str, Any] = {}
        for file in named.config:
            options |= self._read_file(file)
        read: list[str] = []
        for name, value in options.items():
            if value is not None:  # which leaves an option at its default
                values = value if isinstance(value, list) else [value]
                read += [f"--{name}", *(json.dumps(one) if isinstance(one, dict) else str(one) for one in values)]
        return read + words

    def _read_file(self, file: str) -> dict[str, Any]:
        try:
            options = yaml.load(Path(file).read_text(encoding="utf-8"), _Loader)  # noqa: S506 (a SafeLoader)
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
            self.error(f"{file}: is not YAML: {error}")
        if options is None:  # empty, or comments alone
            return {}
        if not isinstance(options, dict):
            self.error(f"{file}: must consist of lines such as `option: value`")
        for name, value in options.items():
            action = self._option_string_actions.get(f"--{name}")
            if action is None:
                self.error(f"{file}: {name}: no such option")
            if value is None or value in ([], {}):
                if action.default is not None:
                    self.error(f"{file}: {name}: no value; leave the line out for the default, {action.default}")
                options[name] = None
            elif isinstance(value, list) and any(one is None or isinstance(one, list) for one in value):
                self.error(f"{file}: {name}: must be a list of values, got {value}")
            elif value is False and action.choices and "no" in action.choices:
                options[name] = "no"  # which YAML reads as false
        return options

    def _with_flags(self, words: list[str]) -> list[str]:
        """Write `--flag` as `--flag=true`, or argparse would read `--flag VIDEO` as an option with a value."""
        flags = {name for name, action in self._option_string_actions.items() if action.const is True}
        return [
            f"{word}=true" if word in flags and following.lower() not in ("true", "false") else word
            for word, following in zip(words, [*words[1:], ""], strict=False)
        ]

    def error(self, message: str) -> NoReturn:
        say(f"{self.prog}: {one_line(message)} ({self.prog} --help lists the options)", err=True)
        sys.exit(2)


class _Loader(yaml.SafeLoader):
    """Reads `1e-4` as a number, as YAML 1.2 does."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


class _Help(argparse.RawDescriptionHelpFormatter):
    """Show each option once, without the spelling with hyphens, and its default."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return str(action.metavar)
        names = ", ".join(name for name in action.option_strings if "-" not in name[2:])
        flag = action.nargs == 0 or action.const is True
        return names if flag else f"{names} {self._format_args(action, action.dest.upper())}"

    def _get_help_string(self, action: argparse.Action) -> str:
        has_none = any(action.default is none for none in (None, False, "", argparse.SUPPRESS))
        return f"{action.help or ''}{'' if has_none or not action.option_strings else ' (default: %(default)s)'}"
