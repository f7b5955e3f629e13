"""The commands of the three command lines: repeated options are joined or refused, and an unknown option is answered with what to write."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, cast

import typer
from typer.core import TyperCommand, TyperOption

# The metavar of an option whose value is a list: `--task a,b` and `--task a --task b` are the same.
COMMA_LIST = "A,B,..."
FindSettings = Callable[[str], Sequence[str]]
USAGE_ERROR: Any = typer.BadParameter.__base__  # click's UsageError, or typer's own copy of it in newer versions
DEVICE_OPTIONS = ("--gpu", "--gpus", "--gpu-id", "--cuda", "--cpu", "--no-cuda", "--accelerator")
SETTINGS_ARGUMENTS = ("overrides", "settings")  # arguments that take key=value


class ToolCommand(TyperCommand):
    """A command whose errors in the command line say what to write instead."""

    find_settings: ClassVar[FindSettings | None] = None

    def parse_args(self, ctx: object, args: list[str]) -> list[str]:
        """As click's, with repeated options joined, if they are lists, or refused: the last one would win silently."""
        context = cast("typer.Context", ctx)  # of click, or of typer's own copy of it
        try:
            _, _, order = self.make_parser(context).parse_args(args=list(args))
        except USAGE_ERROR as error:
            if advice := self._advise(getattr(error, "option_name", None), args):
                error.message = f"{error.message.rstrip('.')}. {advice}"
            raise
        for option, count in Counter(order).items():
            if count > 1 and isinstance(option, TyperOption) and not (option.multiple or option.is_flag or option.count):
                values = list(_values_of_option(option.opts, args))
                if option.metavar != COMMA_LIST:
                    given = " and ".join(f"{option.opts[0]} {value}" for value in values)
                    context.fail(f"{option.opts[0]} takes one value, and was given {count} times: {given}")
                args = [*_join_option(option.opts, args, ",".join(values))]
        return super().parse_args(context, args)

    def _advise(self, option: str | None, args: Sequence[str]) -> str:
        """What to write instead of an option that does not exist; "" without advice."""
        if option is None:
            return ""
        value = next(_values_of_option([option], args), "")
        names = {name for param in self.params for name in param.opts}
        if option in DEVICE_OPTIONS and "--device" in names:
            return f"The device is chosen by --device: {_describe_device(option, value)}"
        if not any(param.name in SETTINGS_ARGUMENTS for param in self.params):
            return ""
        find = type(self).find_settings
        keys = find(option.lstrip("-").replace("-", "_")) if find else []
        if keys:
            written = " or ".join(f"{key}={value or 'VALUE'}" for key in keys[:3])
            return f"Settings are written without dashes: {written}"
        return "Settings are written without dashes, as key=value"


def use_tool_commands(app: typer.Typer, find_settings: FindSettings | None = None) -> None:
    """Makes the commands of an application, and of those inside it, `ToolCommand`s. Called after the last command was added.

    find_settings: names the settings (key=value) that an unknown option may have meant, best first."""
    members = {} if find_settings is None else {"find_settings": staticmethod(find_settings)}
    for command in app.registered_commands:
        command.cls = type("ToolCommand", (ToolCommand,), members)
    for group in app.registered_groups:
        if group.typer_instance is not None:
            use_tool_commands(group.typer_instance, find_settings)


def _values_of_option(opts: Sequence[str], args: Sequence[str]) -> Iterator[str]:
    """The values that an option has in a command line, up to `--`; `--opt=value` and `--opt value`."""
    words = iter(args)
    for word in words:
        if word == "--":
            return
        name, equals, value = word.partition("=")
        if name in opts:
            yield value if equals else next(words, "")


def _join_option(opts: Sequence[str], args: Sequence[str], value: str) -> Iterator[str]:
    """The command line with the option once, in front, with this value."""
    yield from (opts[0], value)
    words = iter(args)
    for word in words:
        if word == "--":
            yield word
            yield from words
        elif (name := word.partition("=")[0]) in opts:
            if name == word:
                next(words, None)
        else:
            yield word


def _describe_device(option: str, value: str) -> str:
    if option in ("--cpu", "--no-cuda") or value == "cpu":
        return "write --device cpu"
    return f"write --device cuda:{value}" if value.isdecimal() else "write --device cuda"
